//! Refusals of the admin port: always JSON with an error and a remedy, whoever refused.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api;
use crate::config::Wrong;
use crate::model::change::{Refused, RefusedKind};

/// A refusal with its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    status: StatusCode,
    error: String,
    remedy: String,
    problems: Vec<api::Problem>,
}

impl Fault {
    pub fn new(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { status, error: error.into(), remedy: remedy.into(), problems: Vec::new() }
    }

    /// With everything that is wrong.
    pub fn with_problems(self, problems: Vec<api::Problem>) -> Fault {
        Fault { problems, ..self }
    }

    /// A field of an order that cannot be read.
    pub fn field(field: &str, wrong: &Wrong) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, format!("{field}: {}", wrong.what), wrong.remedy.as_str())
    }

    /// One of a few words was expected.
    pub fn choice(field: &str, value: &str, choices: &[&str]) -> Fault {
        Fault::new(
            StatusCode::BAD_REQUEST,
            format!("{field}: '{value}' is none of its values"),
            format!("write one of: {}", choices.join(", ")),
        )
    }

    pub fn not_found(error: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, error, remedy)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        let status = match refused.kind {
            RefusedKind::NotFound => StatusCode::NOT_FOUND,
            RefusedKind::Conflict => StatusCode::CONFLICT,
            RefusedKind::Invalid => StatusCode::BAD_REQUEST,
        };
        Fault::new(status, refused.what, refused.remedy)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.status, Json(api::Error { error: self.error, remedy: self.remedy, problems: self.problems })).into_response()
    }
}
