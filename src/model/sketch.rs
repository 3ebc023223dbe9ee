//! Worlds for tests, drawn in one line: `>v1:a1,a2*2 v2:b1,b2!` is an app `shop` whose current release v1 has backends a1 and
//! a2 (weight 2), while v2, which was there before, drains and has a backup b2. Without `>` the app goes by health.
//! All backends are up unless told otherwise, and the ledger has seen one idle timeout.

use std::sync::Arc;
use std::time::Duration;

use super::admission::{Health, Intent};
use super::backend::Backend;
use super::change::{Applied, Change, Refused, apply, loaded};
use super::event::Owner;
use super::settings::{Address, AppSpec, BackendSpec, Current, Match, Protocol, ReleaseSpec, Settings};
use super::target::Target;
use super::time::Time;
use super::view::{App, View};

/// When worlds begin.
pub const START: Time = Time::from_secs(1_795_168_800);

/// A release from `v1:a1,a2*2,a3!`; `port` numbers the backends' addresses.
pub fn release(text: &str, port: &mut u16) -> ReleaseSpec {
    let (name, backends) = text.split_once(':').expect("RELEASE:BACKEND,…");
    let backends = backends.split(',').map(|text| {
        *port += 1;
        let (text, backup) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
        let (name, weight) = text.split_once('*').map_or((text, 1), |(name, weight)| (name, weight.parse().expect("a weight")));
        backend(name, weight, backup, *port)
    });
    ReleaseSpec { name: name.to_owned(), path: None, backends: backends.collect() }
}

/// A backend on port `port` of host `10.0.0.N`, N being the digit that ends its name.
pub fn backend(name: &str, weight: u32, backup: bool, port: u16) -> BackendSpec {
    let address = Address { host: format!("10.0.0.{}", name.chars().last().filter(char::is_ascii_digit).unwrap_or('9')), port };
    BackendSpec { name: name.to_owned(), route: name.to_owned(), weight, backup, ..plain_backend(address) }
}

/// An app named `name`, as drawn.
pub fn app(name: &str, text: &str, settings: Settings) -> AppSpec {
    let mut port = 8000;
    let mut current = Current::ByHealth;
    let releases = text.split_whitespace().map(|word| {
        let (word, is_current) = word.strip_prefix('>').map_or((word, false), |word| (word, true));
        let release = release(word, &mut port);
        if is_current {
            current = Current::Release(release.name.clone());
        }
        release
    });
    let releases = releases.collect();
    AppSpec { name: name.to_owned(), matches: vec![Match { host: None, path: format!("/{name}") }], settings, current, releases }
}

/// A snapshot, the time, and the hand that changes both.
pub struct World {
    /// The published one.
    pub view: View,
    /// The present.
    pub now: Time,
    port: u16,
}

impl World {
    /// One app, `shop`.
    pub fn new(text: &str) -> World {
        World::with(text, |_| ())
    }

    /// One app, `shop`, with other settings than the default.
    pub fn with(text: &str, set: impl FnOnce(&mut Settings)) -> World {
        let mut settings = Settings::default();
        set(&mut settings);
        World::of(vec![app("shop", text, settings)])
    }

    /// These apps.
    pub fn of(specs: Vec<AppSpec>) -> World {
        let view = loaded(specs, START);
        let idle = view.apps.iter().map(|app| app.settings.session.idle_timeout).max().unwrap_or_default();
        World { view, now: START + idle, port: 9000 }
    }

    /// The app `shop`.
    pub fn shop(&self) -> &Arc<App> {
        self.view.app("shop").expect("the app of every world")
    }

    /// A backend of `shop`; of equal names the first.
    pub fn backend(&self, name: &str) -> &Arc<Backend> {
        let all = self.view.apps.iter().flat_map(|app| app.backends.iter().flatten());
        all.into_iter().find(|b| b.spec.name == name).unwrap_or_else(|| panic!("there is no backend {name}"))
    }

    /// The name of the backend in `slot` of `shop`.
    pub fn name(&self, slot: u32) -> &str {
        self.shop().backend(slot).map_or("nobody", |b| &b.spec.name)
    }

    /// What a probe finds.
    pub fn observe(&self, backend: &str, health: Health) {
        self.backend(backend).live.observe(health, self.now);
    }

    /// Time goes by; the ledger sees it.
    pub fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        for app in &self.view.apps {
            app.ledger.sweep(self.now);
        }
    }

    /// What the operator orders.
    pub fn order(&mut self, change: &Change) -> Result<Applied, Refused> {
        self.change(change, Owner::Operator)
    }

    /// Computes and publishes a change.
    pub fn change(&mut self, change: &Change, owner: Owner) -> Result<Applied, Refused> {
        let applied = apply(&self.view, change, owner, self.now)?;
        let mut published = None;
        applied.commit(|view| published = Some(view));
        self.view = published.expect("commit publishes");
        for (app, slots) in &applied.evict {
            app.ledger.evict(slots, None, usize::MAX, self.now);
        }
        Ok(applied)
    }

    /// A command as typed: `stage v3:c1`, `promote v2 [--from v1]`, `rollback [v1] [--from v2]`, `drain|serve|maintain TARGET`,
    /// `stop v1`, `remove v1`; with `--force`.
    pub fn command(&mut self, text: &str) -> Result<Applied, Refused> {
        let change = self.parse(text);
        self.order(&change)
    }

    /// What such a command asks for.
    pub fn parse(&mut self, text: &str) -> Change {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let force = words.iter().position(|word| *word == "--force").map(|at| words.remove(at)).is_some();
        let from = words.iter().position(|word| *word == "--from").map(|at| {
            words.remove(at);
            words.remove(at).to_owned()
        });
        let app = "shop".to_owned();
        let own = |word: &str| word.to_owned();
        match words.as_slice() {
            ["stage", drawn] => Change::Stage { app, release: release(drawn, &mut self.port) },
            ["promote", name] => Change::Promote { app, release: own(name), from, force },
            ["rollback"] => Change::Rollback { app, to: None, from, force },
            ["rollback", name] => Change::Rollback { app, to: Some(own(name)), from, force },
            ["stop", name] => Change::Stop { app, release: own(name), force },
            ["remove", name] => Change::Remove { app, release: own(name) },
            [intent, target] => {
                let intent = Intent::find(intent).unwrap_or_else(|| panic!("no such command: {text}"));
                Change::Intent { target: Target::parse(target).expect("a target"), intent, force }
            }
            _ => panic!("no such command: {text}"),
        }
    }
}

/// A backend `a1` at this address, with defaults for the rest.
pub fn plain_backend(address: Address) -> BackendSpec {
    BackendSpec {
        name: "a1".to_owned(),
        address,
        route: "a1".to_owned(),
        weight: 1,
        backup: false,
        max_connections: None,
        tls: None,
        protocol: Protocol::Http1,
    }
}
