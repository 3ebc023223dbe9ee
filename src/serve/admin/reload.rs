//! `POST /api/v1/reload`: the file's problems and the sessions at stake, each with its remedy.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;

use super::Admin;
use super::fault::Fault;
use super::order::{Answer, ids, read};
use crate::api;
use crate::config::Problems;
use crate::model::change::Refused;
use crate::serve::reload::{Rejected, ReloadOrder, Report};

pub(super) async fn reload(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Reload = read(&headers, &body)?;
    let how = ReloadOrder { dry_run: order.dry_run, force: order.force };
    // Not on a worker: it reads files.
    let done = tokio::task::spawn_blocking(move || admin.reloader.reload(how)).await;
    let done = done.map_err(|_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be reloaded", "see the process log"))?;
    Ok(Json(done.map(told)?).into_response())
}

fn told(report: Report) -> api::Reloaded {
    let result = match (report.dry_run, report.lines.is_empty()) {
        (true, _) if !report.refusals.is_empty() => "would_refuse",
        (_, true) => "unchanged",
        (true, false) => "would_apply",
        (false, false) => "applied",
    };
    let change = |line: crate::model::change::reload::Line| api::ReloadChange { at: line.at, what: line.what, live: line.live };
    api::Reloaded {
        result: result.to_owned(),
        changes: report.lines.into_iter().map(change).collect(),
        problems: refusals(report.refusals),
        drains: ids(&report.drains),
    }
}

/// What speaks against it only at this moment has no line in the file.
fn refusals(refusals: Vec<Refused>) -> Vec<api::Problem> {
    let problem = |refused: Refused| api::Problem { what: refused.what, remedy: refused.remedy, ..api::Problem::default() };
    refusals.into_iter().map(problem).collect()
}

fn of_file(problems: Problems) -> Vec<api::Problem> {
    let problem =
        |p: crate::config::Problem| api::Problem { file: Some(p.file), line: Some(p.line), at: p.at, what: p.what, remedy: p.remedy };
    problems.0.into_iter().map(problem).collect()
}

impl From<Rejected> for Fault {
    fn from(rejected: Rejected) -> Fault {
        match rejected {
            Rejected::NoFile => Fault::new(StatusCode::CONFLICT, rejected.to_string(), "stage and promote releases by command"),
            Rejected::Unusable(why) => Fault::new(StatusCode::BAD_REQUEST, why, "nothing was changed: mend it and reload again"),
            Rejected::Problems(problems) => {
                Fault::new(StatusCode::BAD_REQUEST, "nothing was changed: the file has problems", "mend them and reload again")
                    .with_problems(of_file(problems))
            }
            Rejected::Refused(refused) => {
                Fault::new(StatusCode::CONFLICT, "nothing was changed: the reload is refused", "see the remedy of each problem")
                    .with_problems(refusals(refused))
            }
        }
    }
}
