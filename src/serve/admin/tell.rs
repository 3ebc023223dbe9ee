//! The questions of the API: nothing here changes anything.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::fault::Fault;
use super::order::{Answer, drain_id};
use super::{Admin, document, known_app, metrics};
use crate::api;
use crate::model::event::Event;

type Shared = State<Arc<Admin>>;

/// 200 while the process lives.
pub(super) async fn healthz() -> &'static str {
    "alive\n"
}

pub(super) async fn readyz(State(admin): Shared) -> Response {
    if admin.ready.load(std::sync::atomic::Ordering::Acquire) {
        return "ready\n".into_response();
    }
    let why = if admin.stopping.load(std::sync::atomic::Ordering::Acquire) { "stopping\n" } else { "starting\n" };
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

pub(super) async fn prometheus(State(admin): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::text(&admin.control)).into_response()
}

pub(super) async fn status(State(admin): Shared) -> Json<api::Status> {
    let stopping = admin.stopping.load(std::sync::atomic::Ordering::Acquire);
    Json(api::Status { stopping, ..document::status(&admin.control) })
}

pub(super) async fn drains(State(admin): Shared) -> Json<api::Drains> {
    Json(api::Drains { drains: document::status(&admin.control).drains })
}

pub(super) async fn drain(State(admin): Shared, Path(id): Path<String>) -> Answer {
    let found = admin.control.drain(drain_id(&id)?);
    let drain = found.ok_or_else(|| Fault::not_found(format!("drain '{id}' does not exist"), "see tidegate status"))?;
    Ok(Json(document::drain(&admin.control, &drain, &admin.control.view(), admin.control.now())).into_response())
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    list: Option<String>,
}

pub(super) async fn sessions(State(admin): Shared, Path(app): Path<String>, Query(query): Query<ListQuery>) -> Answer {
    let app = known_app(&admin, &app)?;
    let now = admin.control.now();
    let with_list = query.list.is_some_and(|list| list != "0");
    // Not on a worker: a million entries take a while to walk.
    let report = tokio::task::spawn_blocking(move || document::sessions_report(&app, with_list, now)).await;
    let broken = |_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the sessions could not be listed", "see the process log");
    Ok(Json(report.map_err(broken)?).into_response())
}

pub(super) async fn export(State(admin): Shared) -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], (admin.export)()).into_response()
}

#[derive(Deserialize)]
pub(super) struct FollowQuery {
    follow: Option<String>,
}

/// First what is remembered, then what happens, until the client leaves or the process stops.
pub(super) async fn events(State(admin): Shared, Query(query): Query<FollowQuery>) -> Response {
    let follow = query.follow.is_none_or(|follow| follow != "0");
    // Listening begins before the past is read, so that nothing falls between; what is in both is told once.
    let news = admin.control.follow();
    let past: VecDeque<Event> = admin.control.events().into();
    let telling = Telling {
        overlap: news.len(),
        told: past.iter().rev().take(news.len()).cloned().collect(),
        past,
        news,
        follow,
        stop: admin.stop.clone(),
    };
    let frames =
        stream::unfold(telling, |mut telling| async move { telling.next().await.map(|frame| (Ok::<_, Infallible>(frame), telling)) });
    Sse::new(frames).keep_alive(KeepAlive::default()).into_response()
}

struct Telling {
    past: VecDeque<Event>,
    told: Vec<Event>,
    /// News that may be in the past too.
    overlap: usize,
    news: broadcast::Receiver<Event>,
    follow: bool,
    stop: watch::Receiver<bool>,
}

impl Telling {
    async fn next(&mut self) -> Option<Frame> {
        if let Some(event) = self.past.pop_front() {
            return Some(frame(&document::event(&event)));
        }
        while self.follow {
            let news = tokio::select! {
                news = self.news.recv() => news,
                _ = self.stop.wait_for(|stop| *stop) => return None,
            };
            let overlap = self.overlap > 0;
            self.overlap = self.overlap.saturating_sub(1);
            match news {
                Ok(event) if overlap && self.told.contains(&event) => {}
                Ok(event) => return Some(frame(&document::event(&event))),
                Err(RecvError::Lagged(missed)) => return Some(Frame::default().comment(format!("{missed} events missed: ask again"))),
                Err(RecvError::Closed) => return None,
            }
        }
        None
    }
}

fn frame(event: &api::Event) -> Frame {
    Frame::default().json_data(event).unwrap_or_else(|_| Frame::default().comment("unprintable"))
}
