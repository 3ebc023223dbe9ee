//! During an upgrade two processes serve the same app: what either learns of a session is told to the other at once.
//!
//! Each tells only what happened in itself, never what it was told, so nothing goes round in circles.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::packed::{pack, unpack};
use super::wire::{Line, Place, Word};
use crate::model::admission::Admission;
use crate::model::gate::InFlight;
use crate::model::ledger::{Found, Noted, Notes, Origin, Page, Record};
use crate::model::time::Time;
use crate::model::view::{App, View};
use crate::serve::control::Control;

/// A message of sessions is sent once it is so long.
const MESSAGE: usize = 1 << 20;

/// What is to be told, in this order.
#[derive(Debug)]
pub enum Item {
    /// What happened in the ledger of an app.
    Notes(Arc<str>, Notes),
    /// That was every app once.
    Turn,
    /// A word in between, with descriptors beside it.
    Word(Word, Vec<OwnedFd>),
    /// There is no more.
    End,
}

/// The end that tells.
pub struct Teller {
    line: Line,
    /// Numbers given to backends, by app and slot.
    places: HashMap<(Arc<str>, u32), u32>,
}

impl Teller {
    /// Over the writing half of a line.
    pub fn new(line: Line) -> Teller {
        Teller { line, places: HashMap::new() }
    }

    /// Tells of every session there is. Notes must be taken before, and told after.
    ///
    /// # Errors
    /// The other process is gone.
    pub fn tell_all(&mut self, view: &View, now: Time) -> io::Result<()> {
        for app in &view.apps {
            self.tell_app(app, now)?;
        }
        self.line.say(&Word::Told)
    }

    fn tell_app(&mut self, app: &App, now: Time) -> io::Result<()> {
        let (mut records, mut page) = (Vec::new(), Some(Page::default()));
        while let Some(from) = page {
            page = app.ledger.page(from, &mut records);
            self.tell(app, records.drain(..).map(Noted::Entry), now)?;
        }
        self.tell(app, app.ledger.former_names().into_iter().map(|(old, new)| Noted::Renamed { old, new }), now)?;
        self.line.say(&Word::Uncounted { app: app.name.to_string(), until: app.ledger.uncounted_until() })
    }

    /// Tells what happened here in one app.
    fn tell_notes(&mut self, view: &View, app: &str, notes: &Notes, now: Time) -> io::Result<()> {
        let Some(app) = view.app(app) else { return Ok(()) };
        if notes.overflowed {
            self.tell_app(app, now)?;
        }
        self.tell(app, notes.notes.iter().filter(|(_, origin)| *origin == Origin::Here).map(|(noted, _)| *noted), now)
    }

    fn tell(&mut self, app: &App, notes: impl Iterator<Item = Noted>, now: Time) -> io::Result<()> {
        let name = app.name.as_bytes();
        let begin = [&[u8::try_from(name.len()).unwrap_or(u8::MAX)][..], name].concat();
        let mut message = begin.clone();
        for noted in notes {
            let noted = under_way(noted, now);
            let place = match &noted {
                Noted::Entry(record) => match self.place(app, record.found.slot)? {
                    Some(place) => place,
                    // Its backend was removed; so will be its entry.
                    None => continue,
                },
                Noted::Gone(_) | Noted::Renamed { .. } => 0,
            };
            pack(&mut message, &noted, place);
            if message.len() >= MESSAGE {
                self.line.sessions(&message)?;
                message.clone_from(&begin);
            }
        }
        if message.len() > begin.len() { self.line.sessions(&message) } else { Ok(()) }
    }

    /// The number of a backend, told before it is used.
    fn place(&mut self, app: &App, slot: u32) -> io::Result<Option<u32>> {
        if let Some(place) = self.places.get(&(Arc::clone(&app.name), slot)) {
            return Ok(Some(*place));
        }
        let Some(backend) = app.backend(slot) else { return Ok(None) };
        let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.insert((Arc::clone(&app.name), slot), place);
        let (release, name) = (backend.release.to_string(), backend.spec.name.clone());
        self.line.say(&Word::Places(vec![Place { place, app: app.name.to_string(), release, backend: name }]))?;
        Ok(Some(place))
    }

    /// Exchanges under way at this moment, by place.
    fn under_way(&mut self, view: &View) -> io::Result<Vec<(u32, u32)>> {
        let mut counts = Vec::new();
        for app in &view.apps {
            for backend in app.backends.iter().flatten() {
                let count = backend.live.gate.in_flight();
                if count > 0
                    && let Some(place) = self.place(app, backend.slot)?
                {
                    counts.push((place, count));
                }
            }
        }
        Ok(counts)
    }

    /// Tells everything until [`Item::End`], or the other process is gone. With `quiet` also who is under way here, each count
    /// only after all that exchanges which are over by then have brought about; and, once, that `quiet` says so.
    ///
    /// # Errors
    /// The other process is gone.
    pub fn run(mut self, control: &Control, items: &Receiver<Item>, quiet: Option<&dyn Fn() -> bool>) -> io::Result<()> {
        let (mut counted, mut told, mut said_quiet) = (None::<Vec<(u32, u32)>>, None, false);
        for item in items {
            let view = control.view();
            match (item, quiet) {
                (Item::Notes(app, notes), _) => self.tell_notes(&view, &app, &notes, control.now())?,
                (Item::Word(word, beside), _) => {
                    let beside: Vec<BorrowedFd<'_>> = beside.iter().map(AsFd::as_fd).collect();
                    self.line.say_with(&word, &beside)?;
                }
                (Item::End, _) => return Ok(()),
                (Item::Turn, None) => {}
                (Item::Turn, Some(quiet)) => {
                    // The notes of this turn were taken after the count of the turn before was read; and so was this answer.
                    let nobody_comes = quiet();
                    if let Some(counts) = counted.take().filter(|counts| told.as_ref() != Some(counts)) {
                        self.line.say(&Word::UnderWay(counts.clone()))?;
                        told = Some(counts);
                    } else if told.is_some() && !said_quiet && nobody_comes {
                        self.line.say(&Word::Quiet)?;
                        said_quiet = true;
                    }
                    counted = Some(self.under_way(&view)?);
                }
            }
        }
        Ok(())
    }
}

/// An exchange under way, a WebSocket of hours perhaps, touches its session until now; over there nothing else would say so.
fn under_way(noted: Noted, now: Time) -> Noted {
    match noted {
        Noted::Entry(record) if record.found.open > 0 => {
            let found = Found { seen: record.found.seen.max(now), ..record.found };
            Noted::Entry(Record { found, ..record })
        }
        other => other,
    }
}

/// The end that hears.
#[derive(Default)]
pub struct Hearer {
    /// What the other's numbers mean here.
    places: HashMap<u32, (Arc<str>, u32)>,
    /// Exchanges under way there hold the gates here.
    held: HashMap<u32, Vec<InFlight>>,
}

impl Hearer {
    /// Learns what numbers mean.
    pub fn places(&mut self, view: &View, places: &[Place]) {
        for told in places {
            let Some(app) = view.app(&told.app) else { continue };
            if let Some(slot) = app.slot(&told.release, &told.backend) {
                self.places.insert(told.place, (Arc::clone(&app.name), slot));
            }
        }
    }

    /// Until when somebody may live over there whom no ledger counts.
    pub fn uncounted(&self, view: &View, app: &str, until: [Time; 2]) {
        if let Some(app) = view.app(app) {
            app.ledger.recall_uncounted(until);
        }
    }

    /// Takes a message of sessions to heart.
    ///
    /// # Errors
    /// Nonsense; what came before it counts.
    pub fn sessions(&self, view: &View, message: &[u8], now: Time) -> Result<(), &'static str> {
        let (length, rest) = message.split_first().ok_or("an empty message")?;
        let (name, mut notes) = rest.split_at_checked(usize::from(*length)).ok_or("half a name")?;
        let Some(app) = view.apps.iter().find(|app| app.name.as_bytes() == name) else { return Ok(()) };
        let slot = |place| self.places.get(&place).filter(|(owner, _)| *owner == app.name).map(|(_, slot)| *slot);
        while !notes.is_empty() {
            match unpack(&mut notes, slot)? {
                Some(Noted::Entry(record)) => app.ledger.absorb(&record, now),
                Some(Noted::Gone(key)) => app.ledger.absorb_gone(key, now),
                Some(Noted::Renamed { old, new }) => app.ledger.absorb_renamed(old, new, now),
                None => {}
            }
        }
        Ok(())
    }

    /// Exchanges under way in the other process hold this one's fences, as its own do.
    pub fn under_way(&mut self, view: &View, counts: &[(u32, u32)]) {
        let mut held = std::mem::take(&mut self.held);
        for (place, count) in counts {
            let Some((app, slot)) = self.places.get(place) else { continue };
            let Some(backend) = view.app(app).and_then(|app| app.backend(*slot)) else { continue };
            let mut guards = held.remove(place).unwrap_or_default();
            // Whoever is inside already needs no admission.
            let more = (*count as usize).saturating_sub(guards.len());
            guards.truncate(*count as usize);
            guards.extend((0..more).map_while(|_| backend.live.gate.claim(Admission::Nobody, None).ok()));
            self.held.insert(*place, guards);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::change::{Change, NewApp};
    use crate::model::event::Owner;
    use crate::model::ledger::{Attention, EndReason, Standing};
    use crate::model::pin::Keyring;
    use crate::model::session_key::{KeyedHash, SessionKey};
    use crate::model::settings::Settings;
    use crate::model::sketch;
    use crate::serve::clock::Clock;
    use crate::serve::control::DrainOrder;
    use crate::serve::upgrade::wire::Message;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    /// A process of the pair.
    struct End {
        control: Control,
        teller: Teller,
        line: Line,
        hearer: Hearer,
    }

    impl End {
        fn new(stream: UnixStream, drawn: &str) -> End {
            let keyring = Arc::new(Keyring::new([("k", [7; 32].as_slice())]).expect("a good key"));
            let spec = sketch::app("shop", drawn, Settings::default());
            let app = NewApp { spec, keyring, hash: Arc::new(KeyedHash::new([7; 16])), memory: None };
            let control = Control::new(Clock::start());
            control.apply(&Change::Load(vec![app]), Owner::Config, DrainOrder::default()).expect("it loads");
            let app = Arc::clone(&control.view().apps[0]);
            app.ledger.keep_journal();
            let line = Line::new(stream);
            line.patience(Some(Duration::from_secs(5))).expect("a socket");
            End { control, teller: Teller::new(line.split().expect("a descriptor")), line, hearer: Hearer::default() }
        }

        fn app(&self) -> Arc<App> {
            Arc::clone(&self.control.view().apps[0])
        }

        fn born(&self, id: u8, backend: &str) {
            let app = self.app();
            let slot = app.slot(if backend.starts_with('a') { "v1" } else { "v2" }, backend).expect("it exists");
            app.ledger.born(SessionKey([id; 16]), slot, 0, self.control.now());
            app.ledger.enter(SessionKey([id; 16]), Attention::Foreground, self.control.now());
            app.ledger.leave(SessionKey([id; 16]), self.control.now());
        }

        fn notes(&self) -> Notes {
            self.app().ledger.take_notes(self.control.now())
        }

        fn tell(&mut self) {
            let notes = self.notes();
            self.teller.tell_notes(&self.control.view(), "shop", &notes, self.control.now()).expect("the other end is there");
            self.teller.line.say(&Word::Told).expect("the other end is there");
        }

        /// Until it is told that this is all.
        fn hear(&mut self) {
            let view = self.control.view();
            loop {
                match self.line.hear().expect("in time").expect("a message") {
                    Message::Word(Word::Places(places)) => self.hearer.places(&view, &places),
                    Message::Sessions(message) => self.hearer.sessions(&view, &message, self.control.now()).expect("sense"),
                    Message::Word(Word::UnderWay(counts)) => self.hearer.under_way(&view, &counts),
                    Message::Word(Word::Uncounted { app, until }) => self.hearer.uncounted(&view, &app, until),
                    Message::Word(_) => return,
                }
            }
        }

        fn knows(&self, id: u8) -> Option<(String, Standing)> {
            let app = self.app();
            let found = app.ledger.find(SessionKey([id; 16]), self.control.now())?;
            Some((app.backend(found.slot)?.spec.name.clone(), found.standing))
        }
    }

    /// The second process has the backends in another order, and so other slots.
    fn pair() -> (End, End) {
        let (a, b) = UnixStream::pair().expect("a pair of sockets");
        (End::new(a, "v1:a1,a2 >v2:b1"), End::new(b, ">v2:b1 v1:a2,a1"))
    }

    #[test]
    fn both_processes_know_what_either_learns() {
        let (mut old, mut new) = pair();
        const LIVE: Standing = Standing::Live { confirmed: true };
        old.born(1, "a1");
        old.born(2, "b1");
        let (app, now) = (old.app(), old.control.now());
        old.born(8, "a1");
        let slot = app.slot("v1", "a1").expect("it exists");
        app.ledger.rotate(SessionKey([8; 16]), SessionKey([9; 16]), slot, 0, Some(Duration::ZERO), now);
        drop(old.notes());
        let view = old.control.view();
        old.teller.tell_all(&view, now).expect("the other end is there");
        new.hear();
        assert_eq!((new.knows(1), new.knows(2)), (Some(("a1".into(), LIVE)), Some(("b1".into(), LIVE))));
        assert_eq!((new.knows(8), new.knows(9)), (new.knows(9), Some(("a1".into(), LIVE))), "a name of before the upgrade");
        new.born(3, "b1");
        assert!(new.app().ledger.end(SessionKey([1; 16]), EndReason::Logout, 0, new.control.now()));
        new.app().ledger.rotate(
            SessionKey([2; 16]),
            SessionKey([4; 16]),
            new.app().slot("v2", "b1").unwrap(),
            0,
            Some(Duration::ZERO),
            new.control.now(),
        );
        new.tell();
        old.hear();
        assert_eq!(old.knows(1), Some(("a1".into(), Standing::Ended(EndReason::Logout))));
        assert_eq!(old.knows(3), Some(("b1".into(), LIVE)));
        assert_eq!((old.knows(2), old.knows(4)), (old.knows(4), Some(("b1".into(), LIVE))), "a renamed session has both names");
        let here = old.notes().notes.into_iter().filter(|(_, origin)| *origin == Origin::Here).count();
        assert_eq!(here, 0, "what was told is no news to who told it");
    }

    #[test]
    fn a_hundred_thousand_sessions_are_told_in_one_go() {
        const SESSIONS: u64 = 100_000;
        let (mut old, mut new) = pair();
        let app = old.app();
        for id in 0..SESSIONS {
            let key = SessionKey((u128::from(id) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834).to_le_bytes());
            app.ledger.born(key, (id % 3) as u32, 0, old.control.now());
        }
        let begun = std::time::Instant::now();
        let view = old.control.view();
        std::thread::scope(|scope| {
            scope.spawn(|| old.teller.tell_all(&view).expect("the other end is there"));
            new.hear();
        });
        println!("{SESSIONS} sessions told and heard in {:?}", begun.elapsed());
        assert_eq!(new.app().ledger.entries() as u64, SESSIONS);
    }

    #[test]
    fn a_drain_waits_for_exchanges_of_the_other_process() {
        let (old, mut new) = pair();
        let backend = |end: &End| {
            let app = end.app();
            Arc::clone(app.backend(app.slot("v1", "a1").unwrap()).unwrap())
        };
        let gate = Arc::clone(&backend(&old).live.gate);
        backend(&old).live.observe(crate::model::admission::Health::Up, old.control.now());
        let exchange = gate.claim(Admission::KnownSessions, None).expect("v1 admits known sessions");
        let (items, received) = mpsc::channel();
        (0..3).for_each(|_| items.send(Item::Turn).expect("it is received"));
        let told = std::thread::scope(|scope| {
            let (control, teller) = (&old.control, Teller::new(old.line.split().unwrap()));
            let teller = scope.spawn(move || teller.run(control, &received, Some(&|| true)));
            let view = new.control.view();
            let mut quiet = false;
            let mut counts = Vec::new();
            while !quiet {
                match new.line.hear().expect("in time").expect("a message") {
                    Message::Word(Word::Places(places)) => new.hearer.places(&view, &places),
                    Message::Word(Word::UnderWay(told)) => {
                        new.hearer.under_way(&view, &told);
                        counts.push(told);
                    }
                    Message::Word(Word::Quiet) => quiet = true,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(backend(&new).live.gate.in_flight(), 1);
            assert!(!backend(&new).live.gate.fence(), "an exchange is under way in the other process");
            drop(exchange);
            (0..2).for_each(|_| items.send(Item::Turn).expect("it is received"));
            drop(items);
            match new.line.hear().expect("in time").expect("a message") {
                Message::Word(Word::UnderWay(told)) => new.hearer.under_way(&view, &told),
                other => panic!("{other:?}"),
            }
            teller.join().expect("no panic").expect("the other end is there");
            counts
        });
        assert_eq!(told.len(), 1, "what has not changed is not told again");
        assert!(backend(&new).live.gate.fence());
    }

    #[test]
    fn a_session_that_only_an_open_exchange_keeps_alive_lives_on_in_the_other_process() {
        let (mut old, mut new) = pair();
        old.born(1, "a1");
        let (app, idle) = (old.app(), Settings::default().session.idle_timeout);
        app.ledger.enter(SessionKey([1; 16]), Attention::Foreground, old.control.now());
        let later = old.control.now() + idle * 2;
        old.teller.tell_all(&old.control.view(), later).expect("the other end is there");
        new.hear();
        let found = new.app().ledger.find(SessionKey([1; 16]), later).expect("it is known");
        assert!(matches!(found.standing, Standing::Live { .. }), "{found:?}");
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let (_, new) = pair();
        let view = new.control.view();
        for bytes in [&b""[..], b"\x09shop", b"\x04shopx", b"\x04shope123"] {
            new.hearer.sessions(&view, bytes, new.control.now()).expect_err("nonsense");
        }
        new.hearer.sessions(&view, b"\x04nonee", new.control.now()).expect("an app that is not here is no concern");
    }
}
