//! The stream behind an open page: once a second whatever has changed, and every few seconds a sign of life.
//!
//! All open pages share one look at the state. The first frame of a stream is whole, so a page that was away needs to know nothing of
//! what it missed.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::sse::{Event as Frame, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::cells::Cells;
use super::curve::Gallery;
use super::facts::Facts;
use super::{BUILD, html};
use crate::serve::admin::Admin;
use crate::serve::date::rfc3339;

/// Between two frames.
const EVERY: Duration = Duration::from_secs(1);
/// A look that is older is taken anew; a little less than [`EVERY`], so that one page alone sees each second once.
const FRESH: Duration = Duration::from_millis(900);
/// Longest silence: the page takes a longer one for a broken connection.
const BEAT: Duration = Duration::from_secs(5);

/// What was seen last, for all who look at the same time.
#[derive(Default)]
pub struct Sight {
    moment: Mutex<Option<(Instant, Arc<Moment>)>>,
    curves: Mutex<Gallery>,
    /// A page and its structure, for all who fetch it because of that; their streams have told them newer figures.
    page: Mutex<Option<(String, Arc<str>)>>,
}

/// One look.
#[derive(Debug)]
struct Moment {
    at: String,
    structure: String,
    cells: Cells,
}

/// What is sent.
#[derive(Serialize)]
struct News<'a> {
    /// When it was true.
    at: &'a str,
    /// Of page and script: another one asks for a new page.
    build: &'a str,
    /// Another one asks for a new `<main>`.
    structure: &'a str,
    #[serde(flatten)]
    cells: Cells,
}

impl Sight {
    /// Everything that can be seen at this moment.
    pub(super) fn facts(&self, admin: &Admin) -> Facts {
        let facts = Facts::gather(admin);
        let samples = admin.control.history.samples();
        let mut gallery = self.curves.lock().unwrap_or_else(PoisonError::into_inner);
        Facts { curves: gallery.curves(&facts.status, &samples), ..facts }
    }

    /// A page of this structure; of the present one if that is another.
    pub(super) fn page(&self, admin: &Admin, structure: &str) -> Arc<str> {
        let mut kept = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, page)) = kept.as_ref().filter(|(drawn, _)| drawn == structure) {
            return Arc::clone(page);
        }
        let (structure, page) = html::page(&self.facts(admin));
        let page: Arc<str> = page.into();
        *kept = Some((structure, Arc::clone(&page)));
        page
    }

    fn moment(&self, admin: &Admin) -> Arc<Moment> {
        let mut kept = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, moment)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Arc::clone(moment);
        }
        let facts = self.facts(admin);
        let (structure, cells) = html::skeleton(&facts);
        let moment = Arc::new(Moment { at: rfc3339(facts.now), structure, cells });
        *kept = Some((Instant::now(), Arc::clone(&moment)));
        moment
    }
}

/// Until the page is closed or the process stops.
pub(in crate::serve::admin) async fn live(State(admin): State<Arc<Admin>>) -> Response {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = Watching { stop: admin.stop.clone(), admin, ticks, told: None, spoke: Instant::now() };
    let frames =
        stream::unfold(watching, |mut watching| async move { watching.next().await.map(|frame| (Ok::<_, Infallible>(frame), watching)) });
    Sse::new(frames).into_response()
}

/// One open page.
struct Watching {
    admin: Arc<Admin>,
    stop: watch::Receiver<bool>,
    ticks: Interval,
    told: Option<Arc<Moment>>,
    spoke: Instant,
}

impl Watching {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            tokio::select! {
                _ = self.ticks.tick() => {}
                _ = self.stop.wait_for(|stop| *stop) => return None,
            }
            let moment = self.admin.sight.moment(&self.admin);
            let (cells, same) = match &self.told {
                Some(told) => (moment.cells.since(&told.cells), told.structure == moment.structure),
                None => (moment.cells.clone(), false),
            };
            if cells.is_empty() && same && self.spoke.elapsed() < BEAT {
                continue;
            }
            let news = News { at: &moment.at, build: &BUILD, structure: &moment.structure, cells };
            let frame = Frame::default().json_data(&news).unwrap_or_else(|_| Frame::default().comment("unprintable"));
            (self.told, self.spoke) = (Some(moment), Instant::now());
            return Some(frame);
        }
    }
}
