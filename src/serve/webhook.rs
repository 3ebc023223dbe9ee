//! `drain.webhook`: tells another system how a drain ended, or that its deadline passed with sessions left.
//!
//! The drains are looked at from outside, so nothing that decides about them waits for a report. Each report is a task of its own:
//! a receiver that hangs holds up no other. A report may arrive twice (the receiver's answer can get lost), and those under way when
//! the process ends are not sent.
//!
//! | file | holds |
//! |---|---|
//! | `news` | which drains have something to tell |
//! | `post` | one report on its way |

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

mod news;
mod post;

use news::{Told, Word};
use post::{Report, Times};

use crate::model::drain::Drain;
use crate::model::settings::WebhookUrl;
use crate::model::view::{App, View};
use crate::serve::admin::drain_document;
use crate::serve::control::Control;
use crate::serve::outbound::Connectors;
use crate::serve::secrets;

/// Between two looks at the drains: nobody waits for a report with a stopwatch.
const LOOK: Duration = Duration::from_millis(250);
/// Reports on their way at a time. A receiver that is away for an hour of many drains loses the latest, which is logged.
const UNDER_WAY: usize = 100;

/// What became of an attempt to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportResult {
    /// The receiver took it.
    Delivered,
    /// It is tried again.
    Failed,
    /// It was tried for long enough.
    GivenUp,
    /// Too many were under way.
    Dropped,
}

impl ReportResult {
    /// All, in the order of their counters.
    pub const ALL: [ReportResult; 4] = [ReportResult::Delivered, ReportResult::Failed, ReportResult::GivenUp, ReportResult::Dropped];

    /// As written in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReportResult::Delivered => "delivered",
            ReportResult::Failed => "failed",
            ReportResult::GivenUp => "given_up",
            ReportResult::Dropped => "dropped",
        }
    }
}

/// How often each result was met.
#[derive(Debug, Default)]
pub struct ReportTally([AtomicU64; ReportResult::ALL.len()]);

impl ReportTally {
    fn count(&self, result: ReportResult) {
        if let Some(count) = self.0.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So far.
    pub fn so_far(&self) -> [(ReportResult, u64); ReportResult::ALL.len()] {
        ReportResult::ALL.map(|result| (result, self.0.get(result as usize).map_or(0, |count| count.load(Ordering::Relaxed))))
    }
}

/// Looks at the drains and sends reports for as long as the process runs. Verdicts from before its start are not told again.
/// The connectors are the probes' own: each holds a TLS context with the system's certificates.
pub async fn run(control: Arc<Control>, directory: PathBuf, connectors: Arc<Connectors>) {
    let mut told = Told::from_now_on(&control.drains());
    let sender = Sender { control: Arc::clone(&control), directory, connectors, room: Arc::new(Semaphore::new(UNDER_WAY)) };
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let (drains, view, now) = (control.drains(), control.view(), control.now());
        for (drain, word) in told.news(&drains, &view, now) {
            sender.report(drain, word, &view);
        }
    }
}

/// Sends reports.
struct Sender {
    control: Arc<Control>,
    directory: PathBuf,
    connectors: Arc<Connectors>,
    room: Arc<Semaphore>,
}

impl Sender {
    /// To the webhook of each app that the drain covers, once where several have the same.
    fn report(&self, drain: &Drain, word: Word, view: &View) {
        let receivers = receivers(drain, view);
        // The document holds a forecast: whoever has no webhook does not pay for it.
        if receivers.is_empty() {
            return;
        }
        let mut document = drain_document(&self.control, drain, view, self.control.now());
        document.verdict = Some(word.as_str().to_owned());
        let body = match serde_json::to_vec(&document) {
            Ok(body) => Bytes::from(body),
            Err(error) => return log::error!("drain {}: its report cannot be written: {error}", document.id),
        };
        for (app, url) in receivers {
            let about = format!("drain {}: {}", document.id, word.as_str());
            let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
                self.control.reports.count(ReportResult::Dropped);
                log::error!("{about}: not reported: {UNDER_WAY} reports wait for their receivers already");
                continue;
            };
            let key_file = secrets::webhook_key_file(&self.directory, &app.name, &app.settings.drain);
            let report = Report { url: url.clone(), key_file, body: body.clone(), about };
            let (control, connectors) = (Arc::clone(&self.control), Arc::clone(&self.connectors));
            tokio::spawn(async move {
                report.deliver(&connectors, &control, Times::default()).await;
                drop(room);
            });
        }
    }
}

/// The apps that a drain covers and that want to be told, each URL once.
fn receivers<'a>(drain: &Drain, view: &'a View) -> Vec<(&'a App, &'a WebhookUrl)> {
    let mut receivers: Vec<(&App, &WebhookUrl)> = Vec::new();
    for app in &view.apps {
        let Some(url) = &app.settings.drain.webhook else { continue };
        if !receivers.iter().any(|(_, known)| *known == url) && news::covers(drain, app, view) {
            receivers.push((app, url));
        }
    }
    receivers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Owner;
    use crate::model::settings::Address;
    use crate::model::sketch::World;
    use crate::model::target::Target;

    #[test]
    fn only_apps_with_a_webhook_that_the_drain_covers_are_told_and_each_receiver_once() {
        let address = Address { host: "ci.example.com".to_owned(), port: 443 };
        let url = WebhookUrl { url: "https://ci.example.com/".to_owned(), tls: true, address, target: "/".to_owned() };
        let check = |webhook: Option<&WebhookUrl>, target: &str, expected: usize| {
            let mut world = World::with(">v1:a1 v2:b1", |settings| settings.drain.webhook = webhook.cloned());
            world.view.apps.push(Arc::clone(&world.view.apps[0]));
            let drain = Drain::new(1, Target::parse(target).unwrap(), Owner::Operator, &world.view, world.now);
            assert_eq!(receivers(&drain, &world.view).len(), expected, "{target}, {webhook:?}");
        };
        check(None, "shop/v1", 0);
        check(Some(&url), "shop/v1", 1);
        check(Some(&url), "wiki/v1", 0);
        check(Some(&url), "host:10.0.0.1", 1);
        check(Some(&url), "host:10.0.0.9", 0);
    }
}
