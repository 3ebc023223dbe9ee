//! What happened, by whom and when: the event log's entries.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// Who caused a transition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The configuration file.
    #[default]
    Config,
    /// A command or API call.
    Operator,
    /// A probe or a failed connect.
    Health,
    /// Our own timer.
    Controller,
}

impl Owner {
    /// As written in API and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Owner::Config => "config",
            Owner::Operator => "operator",
            Owner::Health => "health",
            Owner::Controller => "controller",
        }
    }
}

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Time,
    /// By whom.
    pub owner: Owner,
    /// What it happened to, as in a TARGET: `shop`, `shop/v41`, `shop/v41/a1`.
    pub target: Arc<str>,
    /// What happened, in a few words.
    pub what: String,
}
