//! Why a backend's own count of its sessions (`session.count_probe`) could not be read, and how often.
//!
//! A count that cannot be read is no count of zero: it is no reading at all.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why there is no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountFault {
    /// `user_file` cannot be read, or holds no `user:password`.
    UserFile,
    /// No connection, or one that broke.
    Unreachable,
    /// Connected, then silent or too slow.
    Silent,
    /// 401 or 403.
    Unauthorized,
    /// Any other status than 200.
    Status,
    /// More bytes than any such answer has.
    TooLarge,
    /// It says no number of sessions.
    Unreadable,
}

impl CountFault {
    /// All, in the order of their counters.
    pub const ALL: [CountFault; 7] = [
        CountFault::UserFile,
        CountFault::Unreachable,
        CountFault::Silent,
        CountFault::Unauthorized,
        CountFault::Status,
        CountFault::TooLarge,
        CountFault::Unreadable,
    ];

    /// As written in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            CountFault::UserFile => "user_file",
            CountFault::Unreachable => "unreachable",
            CountFault::Silent => "silent",
            CountFault::Unauthorized => "unauthorized",
            CountFault::Status => "status",
            CountFault::TooLarge => "too_large",
            CountFault::Unreadable => "unreadable",
        }
    }
}

/// How often each fault was met at one backend.
#[derive(Debug, Default)]
pub struct CountFaults([AtomicU64; CountFault::ALL.len()]);

impl CountFaults {
    /// Met once more.
    pub fn met(&self, fault: CountFault) {
        if let Some(count) = self.0.get(fault as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So far.
    pub fn so_far(&self, fault: CountFault) -> u64 {
        self.0.get(fault as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_counter_of_its_own() {
        let faults = CountFaults::default();
        for (n, fault) in CountFault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, n);
            faults.met(fault);
            assert_eq!(faults.so_far(fault), 1);
        }
    }
}
