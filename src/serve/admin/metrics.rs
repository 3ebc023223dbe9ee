//! `/metrics`: every metric once, with how it is read.
//!
//! Nothing is registered and nothing is kept here: a scrape reads the same atomics as the status document, so the two cannot differ.
//! Labels are names from the configuration; never a session id, a path or a host that a client sent.

mod scrape;

use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use self::scrape::{Samples, Scrape};
use super::document::progress_ratio;
use crate::model::admission::{Admission, Health, Intent, ReleaseState};
use crate::model::count::CountFault;
use crate::model::drain::Outlook;
use crate::model::forecast::Eta;
use crate::model::incarnation::Proof;
use crate::model::ledger::{EndReason, LossCause};
use crate::model::reason::{PinResult, Reason};
use crate::model::replay::ReplayCause;
use crate::model::tally::CODE_CLASSES;
use crate::serve::control::Control;

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
    /// Observations as their sum and count, from which follows the mean.
    Summary,
    /// A figure at several degrees of certainty: exposed as a summary, for no other type may have the label `quantile`. Sum and count,
    /// which belong to it, are 0, since nothing was observed.
    Forecast,
}

impl Kind {
    /// As in the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary | Kind::Forecast => "summary",
        }
    }
}

/// A metric.
pub struct Described {
    /// With the prefix `tidegate_`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// In the order in which samples give their values.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    read: fn(&Scrape, &mut Samples),
}

const BACKEND: &[&str] = &["app", "release", "backend"];

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape, &mut Samples),
) -> Described {
    Described { name, kind, labels, help, read }
}

/// All metrics, in the order of the manual.
pub const METRICS: &[Described] = &[
    metric(
        "tidegate_sessions",
        Kind::Gauge,
        &["app", "release", "backend", "kind"],
        "Live sessions by kind: engaged or kept alive.",
        |s, out| {
            for (names, backend) in s.backends() {
                out.put_with(&names, "engaged", backend.live.counts.engaged());
                out.put_with(&names, "kept_alive", backend.live.counts.kept_alive());
            }
        },
    ),
    metric("tidegate_sessions_unconfirmed", Kind::Gauge, BACKEND, "Newborn sessions whose client has not come back yet.", |s, out| {
        out.each(s, |b| b.live.counts.unconfirmed());
    }),
    metric("tidegate_sessions_born_total", Kind::Counter, BACKEND, "Sessions that the application made.", |s, out| {
        out.each(s, |b| b.live.counts.born());
    }),
    metric("tidegate_sessions_adopted_total", Kind::Counter, BACKEND, "Sessions from before that the application honoured.", |s, out| {
        out.each(s, |b| b.live.counts.adopted());
    }),
    metric("tidegate_sessions_rotated_total", Kind::Counter, BACKEND, "Sessions whose id the application renewed.", |s, out| {
        out.each(s, |b| b.live.counts.rotated());
    }),
    metric("tidegate_sessions_untracked_total", Kind::Counter, &["app"], "Sessions that found no room in the ledger.", |s, out| {
        for app in &s.view.apps {
            out.put(&[&app.name], app.ledger.untracked_total() as f64);
        }
    }),
    metric(
        "tidegate_sessions_ended_total",
        Kind::Counter,
        &["app", "release", "backend", "reason"],
        "Sessions that are over, by reason.",
        |s, out| {
            for (names, backend) in s.backends() {
                for reason in EndReason::ALL {
                    out.put_with(&names, reason.as_str(), backend.live.counts.ended(reason));
                }
            }
        },
    ),
    metric(
        "tidegate_session_loss_total",
        Kind::Counter,
        &["app", "release", "backend", "cause"],
        "Sessions that users lost, by cause.",
        |s, out| {
            for (names, backend) in s.backends() {
                for cause in LossCause::ALL {
                    out.put_with(&names, cause.as_str(), backend.live.counts.lost(cause));
                }
            }
        },
    ),
    metric("tidegate_ledger_entries", Kind::Gauge, &["app"], "Entries of the ledger, of every kind.", |s, out| {
        for app in &s.view.apps {
            out.put(&[&app.name], app.ledger.entries() as f64);
        }
    }),
    metric("tidegate_ledger_capacity", Kind::Gauge, &["app"], "Entries that the ledger may hold (max_entries).", |s, out| {
        for app in &s.view.apps {
            out.put(&[&app.name], app.ledger.capacity() as f64);
        }
    }),
    metric(
        "tidegate_ledger_write_failures_total",
        Kind::Counter,
        &[],
        "Attempts to write the state file that failed; no drain is confident until one succeeds.",
        |s, out| out.put(&[], s.write_failures as f64),
    ),
    metric(
        "tidegate_count_probe_drift",
        Kind::Gauge,
        BACKEND,
        "What the backend itself counts (session.count_probe), minus live and unconfirmed sessions; missing while it cannot be read.",
        |s, out| {
            for (names, backend) in s.backends() {
                if let Some(reading) = backend.live.count_reading() {
                    out.put(&names, reading.sessions as f64 - backend.sessions() as f64);
                }
            }
        },
    ),
    metric(
        "tidegate_count_probe_failures_total",
        Kind::Counter,
        &["app", "release", "backend", "cause"],
        "Questions of session.count_probe that brought no number, by cause.",
        |s, out| {
            for (names, backend) in s.backends() {
                for fault in CountFault::ALL {
                    // None for those that are never asked.
                    let count = backend.live.count_faults.so_far(fault);
                    if count > 0 {
                        out.put_with(&names, fault.as_str(), count);
                    }
                }
            }
        },
    ),
    metric("tidegate_release_state", Kind::Gauge, &["app", "release", "state"], "1 for the state that the release is in.", |s, out| {
        for (app, release) in s.releases() {
            for state in ReleaseState::ALL {
                out.put(&[&app.name, &release.name, state.as_str()], flag(release.state == state));
            }
        }
    }),
    metric(
        "tidegate_backend_intent",
        Kind::Gauge,
        &["app", "release", "backend", "intent"],
        "1 for what the operator wants of the backend.",
        |s, out| {
            for (names, backend) in s.backends() {
                let now = backend.live.gate.read().intent;
                for intent in Intent::ALL {
                    out.put_with(&names, intent.as_str(), u64::from(now == intent));
                }
            }
        },
    ),
    metric("tidegate_backend_health", Kind::Gauge, &["app", "release", "backend", "health"], "1 for what probing found.", |s, out| {
        for (names, backend) in s.backends() {
            let now = backend.live.gate.read().health;
            for health in Health::ALL {
                out.put_with(&names, health.as_str(), u64::from(now == health));
            }
        }
    }),
    metric("tidegate_backend_admission", Kind::Gauge, &["app", "release", "backend", "admission"], "1 for who may enter.", |s, out| {
        for (names, backend) in s.backends() {
            let now = backend.admission();
            for admission in Admission::ALL {
                out.put_with(&names, admission.as_str(), u64::from(now == admission));
            }
        }
    }),
    metric("tidegate_backend_in_flight", Kind::Gauge, BACKEND, "Exchanges under way.", |s, out| {
        out.each(s, |b| u64::from(b.live.gate.in_flight()));
    }),
    metric(
        "tidegate_tunnels_closed_total",
        Kind::Counter,
        BACKEND,
        "WebSockets and event streams closed because they outlived their session (drain.tunnels, or a deadline that evicts).",
        |s, out| {
            out.each(s, |b| b.live.tally.tunnels_closed());
        },
    ),
    metric("tidegate_backend_queue_length", Kind::Gauge, BACKEND, "Exchanges that wait because the backend is full.", |s, out| {
        out.each(s, |b| u64::from(b.live.queued()));
    }),
    metric(
        "tidegate_backend_incarnations_total",
        Kind::Counter,
        &["app", "release", "backend", "proof"],
        "Restarts of the backend's process: proven by its header or the operator, or suspected since it was away.",
        |s, out| {
            for (names, backend) in s.backends() {
                for proof in Proof::ALL {
                    out.put_with(&names, proof.as_str(), backend.live.lives.begun(proof));
                }
            }
        },
    ),
    metric("tidegate_drain_sessions_initial", Kind::Gauge, &["target"], "Live sessions when the drain began.", |s, out| {
        out.drains(s, |d, _| d.initial as f64);
    }),
    metric(
        "tidegate_drain_sessions_remaining",
        Kind::Gauge,
        &["target", "kind"],
        "Sessions left, by kind: engaged, kept alive, unconfirmed.",
        |s, out| {
            for drain in &s.drains {
                let left = if drain.state.runs() { drain.progress(&s.view, s.now) } else { Default::default() };
                let target = drain.target.to_string();
                for (kind, count) in [("engaged", left.engaged), ("kept_alive", left.kept_alive), ("unconfirmed", left.unconfirmed)] {
                    out.put(&[&target, kind], count as f64);
                }
            }
        },
    ),
    metric(
        "tidegate_drain_in_flight",
        Kind::Gauge,
        &["target"],
        "Exchanges under way on what drains; after the last session the verdict waits for them.",
        |s, out| out.drains(s, |d, s| if d.state.runs() { d.progress(&s.view, s.now).in_flight as f64 } else { 0.0 }),
    ),
    metric("tidegate_drain_progress_ratio", Kind::Gauge, &["target"], "Share of the initial sessions that has left, 0 to 1.", |s, out| {
        out.drains(s, |d, s| if d.state.runs() { progress_ratio(d.initial, d.progress(&s.view, s.now).remaining()) } else { 1.0 });
    }),
    metric("tidegate_drain_confident", Kind::Gauge, &["target"], "1 when a count of zero would be the truth.", |s, out| {
        out.drains(s, |d, s| flag(!d.state.runs() || d.progress(&s.view, s.now).confident));
    }),
    metric("tidegate_drain_started_timestamp_seconds", Kind::Gauge, &["target"], "When the drain began.", |s, out| {
        out.drains(s, |d, _| d.started.0 as f64 / 1000.0);
    }),
    metric(
        "tidegate_drain_deadline_timestamp_seconds",
        Kind::Gauge,
        &["target"],
        "By when the drain is to be empty; absent without a deadline, and once it is over.",
        |s, out| {
            for drain in s.drains.iter().filter(|drain| drain.state.runs()) {
                if let Some(deadline) = drain.deadline {
                    out.put(&[&drain.target.to_string()], deadline.0 as f64 / 1000.0);
                }
            }
        },
    ),
    metric(
        "tidegate_drain_eta_seconds",
        Kind::Forecast,
        &["target"],
        "Until the drain is empty, at 50, 90 and 99 % certainty; absent with too little history.",
        |s, out| {
            for (drain, outlook) in s.drains.iter().zip(&s.outlooks) {
                let over = Outlook { eta: Ok(Eta::default()), upper_bound: None };
                let Ok(eta) = outlook.as_ref().unwrap_or(&over).eta else { continue };
                out.put_quantiles(&[&drain.target.to_string()], &[(0.5, eta.p50), (0.9, eta.p90), (0.99, eta.p99)]);
            }
        },
    ),
    metric(
        "tidegate_drain_upper_bound_seconds",
        Kind::Gauge,
        &["target"],
        "Until the last session has ended, if nobody clicks again.",
        |s, out| {
            for (drain, outlook) in s.drains.iter().zip(&s.outlooks) {
                let bound = outlook.as_ref().and_then(|outlook| outlook.upper_bound);
                out.put(&[&drain.target.to_string()], bound.map_or(0.0, |left| left.as_secs_f64()));
            }
        },
    ),
    metric("tidegate_drains_finished_total", Kind::Counter, &["verdict"], "Drains that are over, by verdict.", |s, out| {
        for (state, count) in s.finished {
            out.put(&[state.as_str()], count as f64);
        }
    }),
    metric(
        "tidegate_webhook_deliveries_total",
        Kind::Counter,
        &["result"],
        "Attempts to report a verdict (drain.webhook): delivered, failed (tried again), given up, or dropped since too many wait.",
        |s, out| {
            for (result, count) in s.reports {
                out.put(&[result.as_str()], count as f64);
            }
        },
    ),
    metric(
        "tidegate_requests_total",
        Kind::Counter,
        &["app", "release", "backend", "code"],
        "Exchanges that a backend took, by the class of the status that the client saw, 0xx: none; the others are in tidegate_decisions_total.",
        |s, out| {
            for (names, backend) in s.backends() {
                for (class, count) in CODE_CLASSES.into_iter().zip(backend.live.tally.codes()) {
                    out.put_with(&names, class, count);
                }
            }
        },
    ),
    metric(
        "tidegate_request_duration_seconds",
        Kind::Histogram,
        &["app", "release"],
        "From the head of a request to the last byte of its answer.",
        |s, out| {
            for (app, release) in s.releases() {
                let (counts, sum) = release.tally.histogram();
                out.put_histogram(&[&app.name, &release.name], &counts, sum);
            }
        },
    ),
    metric(
        "tidegate_backend_request_duration_seconds",
        Kind::Summary,
        BACKEND,
        "How long requests to each backend took, head to last byte; sum divided by count is the mean.",
        |s, out| {
            for (names, backend) in s.backends() {
                let (sum, count) = backend.live.tally.took();
                out.put_summary(&names, sum, count);
            }
        },
    ),
    metric("tidegate_decisions_total", Kind::Counter, &["app", "reason"], "Decisions where a request goes, by reason.", |s, out| {
        for app in &s.view.apps {
            for reason in Reason::ALL {
                out.put(&[&app.name, reason.as_str()], app.tally.decisions(reason) as f64);
            }
        }
    }),
    metric("tidegate_pins_total", Kind::Counter, &["app", "result"], "Requests by what became of the pin that they carried.", |s, out| {
        for app in &s.view.apps {
            for result in PinResult::ALL {
                out.put(&[&app.name, result.as_str()], app.tally.pins(result) as f64);
            }
        }
    }),
    metric(
        "tidegate_replays_total",
        Kind::Counter,
        &["app", "cause"],
        "Requests sent once more because a draining backend did not know their session.",
        |s, out| {
            for app in &s.view.apps {
                for cause in ReplayCause::ALL {
                    out.put(&[&app.name, cause.as_str()], app.tally.replays(cause) as f64);
                }
            }
        },
    ),
    metric("tidegate_config_reloads_total", Kind::Counter, &["result"], "Reloads of the file, by result.", |s, out| {
        for (result, count) in s.reloads {
            out.put(&[result.as_str()], count as f64);
        }
    }),
    metric(
        "tidegate_config_last_reload_successful",
        Kind::Gauge,
        &[],
        "0 while the latest reload was refused or failed: what runs is not what the file says.",
        |s, out| out.put(&[], flag(!s.reload_failed)),
    ),
    metric(
        "tidegate_config_last_reload_success_timestamp_seconds",
        Kind::Gauge,
        &[],
        "When the file was applied last, at the start or by a reload that changed something or nothing.",
        |s, out| out.put(&[], s.applied_at.0 as f64 / 1000.0),
    ),
    metric(
        "tidegate_certificate_expiry_timestamp_seconds",
        Kind::Gauge,
        &["name"],
        "When the certificate for the name ends; of several the first to end.",
        |s, out| {
            for (name, not_after) in &s.certificates {
                out.put(&[name], *not_after as f64);
            }
        },
    ),
    metric("tidegate_build_info", Kind::Gauge, &["version"], "Always 1.", |_, out| out.put(&[env!("CARGO_PKG_VERSION")], 1.0)),
];

/// The table of the manual.
pub fn metrics_table() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for m in METRICS {
        let own: &[&str] = if m.kind == Kind::Forecast { &["quantile"] } else { &[] };
        let labels: Vec<String> = m.labels.iter().chain(own).map(|label| format!("`{label}`")).collect();
        table.push_str(&format!("| `{}` | {} | {} | {} |\n", m.name, m.kind.as_str(), labels.join(", "), m.help));
    }
    table
}

/// The exposition of this moment.
pub fn text(control: &Control) -> String {
    let scrape = Scrape::new(control);
    let families: Vec<MetricFamily> = METRICS.iter().map(|m| family(m, &scrape)).filter(|f| !f.get_metric().is_empty()).collect();
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
        log::error!("metrics cannot be written: {error}");
    }
    String::from_utf8(text).unwrap_or_default()
}

fn family(described: &Described, scrape: &Scrape) -> MetricFamily {
    let mut samples = Samples::new(described.kind, described.labels);
    (described.read)(scrape, &mut samples);
    let mut family = MetricFamily::default();
    family.set_name(described.name.to_owned());
    family.set_help(described.help.to_owned());
    family.set_field_type(match described.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
        Kind::Summary | Kind::Forecast => MetricType::SUMMARY,
    });
    family.set_metric(samples.done());
    family
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = HashSet::new();
        for m in METRICS {
            assert!(names.insert(m.name), "{} twice", m.name);
            assert!(m.name.starts_with("tidegate_") && m.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", m.name);
            assert_eq!(m.name.ends_with("_total"), m.kind == Kind::Counter, "{}", m.name);
            assert!(m.help.ends_with('.'), "{}", m.name);
        }
        assert!(metrics_table().lines().count() == METRICS.len() + 2);
    }
}
