//! While two processes serve, an id that is unknown here may belong to a session that began in the other one a moment ago.
//!
//! News takes its time, and a browser that follows a redirect is faster. Whoever carries an id got it in an answer, so the other
//! process knew it before: it is asked, and all that it knew when it was asked is known here before its answer. Only ids that
//! nobody here knows wait for that, and only while both serve.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::link::Item;
use super::wire::Word;

/// The other process writes everything down before it answers, which takes milliseconds, or seconds on a starved machine. Whoever is
/// not waited for loses a session where nothing but the id says where it belongs (`pin: learn`); whoever waits in vain loses this long,
/// and only while a process that is connected answers nothing: one that ends is not waited for.
const LONGEST: Duration = Duration::from_secs(5);

/// The other process, as far as there is one.
#[derive(Default)]
pub struct Overlap {
    asks: AtomicBool,
    other: Mutex<Option<Other>>,
    heard: watch::Sender<u64>,
}

struct Other {
    items: Sender<Item>,
    tell_now: Arc<dyn Fn() + Send + Sync>,
    /// The last question that was sent.
    asked: u64,
    /// Somebody came after it was sent.
    again: bool,
}

impl Overlap {
    /// From now on its questions are answered: `tell_now` lets `items` have everything that happened up to now.
    pub fn answers(&self, items: Sender<Item>, tell_now: Arc<dyn Fn() + Send + Sync>) {
        self.heard.send_replace(0);
        *self.lock() = Some(Other { items, tell_now, asked: 0, again: false });
    }

    /// From now on it is asked, too: it serves clients, or did so a moment ago.
    pub fn asks(&self) {
        self.asks.store(true, Ordering::Release);
    }

    /// It serves nobody any more, or never did.
    pub fn end(&self) {
        self.asks.store(false, Ordering::Release);
        *self.lock() = None;
        // Whoever still waits waits for nothing.
        self.heard.send_replace(u64::MAX);
    }

    /// Whether an unknown id is worth a question.
    pub fn is_asking(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }

    /// Waits until everything is known here that the other process knew when this was called.
    pub async fn catch_up(&self) {
        let mut heard = self.heard.subscribe();
        let awaited = {
            let mut other = self.lock();
            let Some(other) = other.as_mut() else { return };
            if *heard.borrow() < other.asked {
                // One is under way, and was asked too early for us.
                other.again = true;
                other.asked + 1
            } else {
                other.ask();
                other.asked
            }
        };
        if timeout(LONGEST, heard.wait_for(|heard| *heard >= awaited)).await.is_err() {
            log::debug!("upgrade: the other process did not answer in time");
        }
    }

    /// The other process asked.
    pub fn answer(&self, number: u64) {
        let Some((items, tell_now)) = self.lock().as_ref().map(|other| (other.items.clone(), Arc::clone(&other.tell_now))) else { return };
        tell_now();
        if items.send(Item::Word(Word::Heard(number), Vec::new())).is_err() {
            log::debug!("upgrade: nobody waits for an answer any more");
        }
    }

    /// The other process answered.
    pub fn heard(&self, number: u64) {
        let mut other = self.lock();
        let Some(other) = other.as_mut() else { return };
        self.heard.send_replace(number);
        if std::mem::take(&mut other.again) {
            other.ask();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Other>> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Other {
    fn ask(&mut self) {
        self.asked += 1;
        if self.items.send(Item::Word(Word::Ask(self.asked), Vec::new())).is_err() {
            log::debug!("upgrade: nobody is there to be asked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn asked(items: &Receiver<Item>) -> Vec<u64> {
        let number = |item| match item {
            Item::Word(Word::Ask(number), _) => number,
            other => panic!("{other:?}"),
        };
        items.try_iter().map(number).collect()
    }

    fn overlap() -> (Arc<Overlap>, Receiver<Item>) {
        let (items, received) = channel();
        let overlap = Arc::new(Overlap::default());
        overlap.answers(items, Arc::new(|| ()));
        overlap.asks();
        (overlap, received)
    }

    #[tokio::test]
    async fn who_comes_while_a_question_is_under_way_waits_for_the_next_answer() {
        let (overlap, items) = overlap();
        let wait = || {
            tokio::spawn({
                let overlap = Arc::clone(&overlap);
                async move { overlap.catch_up().await }
            })
        };
        let first = wait();
        tokio::task::yield_now().await;
        let (second, third) = (wait(), wait());
        tokio::task::yield_now().await;
        assert_eq!(asked(&items), [1], "one question at a time");
        overlap.heard(1);
        first.await.expect("it was answered");
        assert!(!second.is_finished() && !third.is_finished(), "that answer may be older than they are");
        assert_eq!(asked(&items), [2], "one for both");
        overlap.heard(2);
        second.await.expect("it was answered");
        third.await.expect("it was answered");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_process_that_is_gone_or_silent() {
        let (overlap, items) = overlap();
        overlap.catch_up().await; // silent: time passes by itself here
        assert_eq!(asked(&items), [1]);
        overlap.end();
        assert!(!overlap.is_asking());
        let begun = tokio::time::Instant::now();
        overlap.catch_up().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[test]
    fn an_answer_comes_behind_everything_that_happened_before() {
        let (items, received) = channel();
        let overlap = Overlap::default();
        let told = items.clone();
        overlap.answers(items, Arc::new(move || told.send(Item::Turn).expect("it is received")));
        overlap.answer(7);
        let received: Vec<Item> = received.try_iter().collect();
        assert!(matches!(received[..], [Item::Turn, Item::Word(Word::Heard(7), _)]), "{received:?}");
    }
}
