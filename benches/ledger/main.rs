//! What ledger operations cost by number of sessions, and what an entry weighs.
//!
//! `cargo bench --bench ledger`; `TIDEGATE_BENCH_TEN_MILLION=1` adds 10^7 sessions (a gigabyte). One thread, uniformly
//! random sessions: no session is in the processor's cache by luck, so at a million the times are mostly cache misses.
//! What is then left of "flat" shows beside the peer: a plain hash map of as many sessions, with entries as large, that does
//! as many look-ups and changes per exchange and nothing else. Below each figure stands how it has grown since a thousand
//! sessions; below the comparison, how the plain map's own exchange has.
//!
//! `cargo bench --bench ledger -- work` counts instructions instead (it needs valgrind), which no cache changes;
//! `-- stalls` shows the longest births while a ledger grows, which averages hide.

mod work;

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate::model::ledger::{Attention, Born, Counts, Ledger, Rules};
use tidegate::model::session_key::SessionKey;
use tidegate::model::settings::SessionSettings;
use tidegate::model::time::Time;

/// Operations per measurement, fewer where they would make a small ledger a large one; the fastest of [`ROUNDS`]
/// counts, the others met another process.
const OPERATIONS: u64 = 100_000;
const ROUNDS: u64 = 5;

/// As in the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EPOCH: Time = Time::from_secs(1_700_000_000);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, rest @ ..] = arguments.as_slice()
        && word == "work"
    {
        return if rest.len() == 3 { work::perform(rest) } else { work::table() };
    }
    if arguments.first().is_some_and(|word| word == "stalls") {
        return stalls();
    }
    // `cargo test --all-targets` runs this too, without the argument and without optimisation.
    let measuring = arguments.iter().any(|argument| argument == "--bench");
    weigh(if measuring { 1_000_000 } else { 10_000 });
    let mut sizes = if measuring { vec![1_000, 10_000, 100_000, 1_000_000] } else { vec![1_000] };
    if std::env::var_os("TIDEGATE_BENCH_TEN_MILLION").is_some() {
        sizes.push(10_000_000);
    }
    let heads = [
        "sessions",
        "find+enter+leave",
        "x plain map",
        "after silence",
        "find, unknown",
        "born",
        "rotate",
        "sweep, quiet",
        "sweep, leaving",
    ];
    let units = ["", "ns", "", "ns", "ns", "ns", "ns", "µs per 100 ms", "ns per session"];
    for [a, b, p, s, c, d, e, f, g] in [heads, units] {
        println!("{a:>10} {b:>17} {p:>12} {s:>14} {c:>14} {d:>7} {e:>7} {f:>14} {g:>15}");
    }
    let mut first = None;
    for sessions in sizes {
        let [s, b, c, d, e, f, g] = measure(sessions);
        let plain = plain_map(sessions);
        let p = b / plain;
        println!("{sessions:>10} {b:>17.0} {p:>12.2} {s:>14.0} {c:>14.0} {d:>7.0} {e:>7.0} {f:>14.1} {g:>15.0}");
        let [s0, b0, c0, d0, e0, plain0] = *first.get_or_insert([s, b, c, d, e, plain]);
        let [s, b, c, d, e] = [s / s0, b / b0, c / c0, d / d0, e / e0];
        let map = format!("map {:.2}", plain / plain0);
        println!("{:>10} {b:>17.2} {map:>12} {s:>14.2} {c:>14.2} {d:>7.2} {e:>7.2}", "x 10^3");
    }
}

/// Prints how long births take at worst while a ledger grows: when its tables are made larger, others wait for their lock. Births
/// during which another process had the processor are left out; interrupts and new pages from the system are not.
fn stalls() {
    let most: u64 = if std::env::var_os("TIDEGATE_BENCH_TEN_MILLION").is_some() { 10_000_000 } else { 1_000_000 };
    let rules = Rules { max_entries: usize::MAX, ..Rules::from(&SessionSettings::default()) };
    let ledger = Ledger::new(rules, EPOCH);
    let (mut longest, mut switches) = (Vec::new(), 0);
    println!("{:>10} {:>14} {:>14} {:>14}", "sessions", "longest, µs", "10th longest", "100th longest");
    for n in 1..=most {
        let key = key(n);
        let micros = 1e6 * timed(|| assert_eq!(ledger.born(key, 0, 7, EPOCH), Born::New));
        if micros >= 5.0 {
            let before = std::mem::replace(&mut switches, involuntary_switches());
            if before == switches {
                longest.push(micros);
            }
        }
        // Each line is about the births since the one before, nine tenths of all.
        if matches!(n, 10_000 | 100_000 | 1_000_000 | 10_000_000) {
            longest.sort_unstable_by(|a, b| b.total_cmp(a));
            let [a, b, c] = [0, 9, 99].map(|place| longest.get(place).copied().unwrap_or(0.0));
            println!("{n:>10} {a:>14.0} {b:>14.0} {c:>14.0}");
            longest.clear();
        }
    }
}

/// How often this process had to make way for another one.
fn involuntary_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Prints what an entry weighs all in: index, timers and slack included. Before anything else is allocated, because
/// freed memory would be used again unseen.
fn weigh(sessions: u64) {
    let before = resident_bytes();
    let (ledger, _) = populated(sessions);
    let resident = (resident_bytes() - before) as f64 / sessions as f64;
    let allocated = ledger.bytes() as f64 / sessions as f64;
    println!("{sessions} sessions: {resident:.1} bytes each resident, {allocated:.1} allocated\n");
}

/// A ledger whose sessions were born over twenty minutes and confirmed, so that deadlines lie as far apart as in life.
fn populated(sessions: u64) -> (Ledger, Time) {
    let rules = Rules { max_entries: usize::MAX, ..Rules::from(&SessionSettings::default()) };
    let ledger = Ledger::new(rules, EPOCH);
    for slot in 0..4 {
        ledger.register(slot, &Arc::<Counts>::default());
    }
    let mut now = EPOCH;
    for n in 0..sessions {
        now = EPOCH + Duration::from_secs(1200).mul_f64(n as f64 / sessions as f64);
        ledger.born(key(n), (n % 4) as u32, 7, now);
        ledger.enter(key(n), Attention::Foreground, now);
        ledger.leave(key(n), now);
        if n % (sessions / 1000) == 0 {
            ledger.sweep(now);
        }
    }
    (ledger, now)
}

/// Nanoseconds of an exchange that engages its session again after minutes, of one in the midst of others, of a miss, a birth
/// and a rotation; microseconds of a sweep in which nobody ends; nanoseconds per session of the sweeps in which everybody is
/// disengaged, ends and is forgotten (a small ledger pays mostly for the hundred minutes in between).
fn measure(sessions: u64) -> [f64; 7] {
    let (ledger, mut now) = populated(sessions);
    let mut dice = 88_172_645_463_325_252;
    let few = OPERATIONS.min(sessions / 10);
    // Those of the first half were silent for ten minutes. Each is met once, far from the one before.
    let silent = best(few, |i| {
        let key = key(i.wrapping_mul(7919) % (sessions / 2));
        black_box(ledger.find(key, now));
        ledger.enter(key, Attention::Foreground, now);
        ledger.leave(key, now);
    });
    for n in 0..sessions {
        ledger.enter(key(n), Attention::Foreground, now);
        ledger.leave(key(n), now);
    }
    let exchange = best(OPERATIONS, |_| {
        let key = key(below(&mut dice, sessions));
        black_box(ledger.find(key, now));
        ledger.enter(key, Attention::Foreground, now);
        ledger.leave(key, now);
    });
    let miss = best(OPERATIONS, |i| {
        black_box(ledger.find(key((1 << 50) + i), now));
    });
    let mut quiet = 0.0;
    for _ in 0..100 {
        now = now + Duration::from_millis(100);
        quiet += timed(|| ledger.sweep(now));
    }
    let born = best(few, |i| {
        black_box(ledger.born(key((1 << 40) + i), (i % 4) as u32, 7, now));
    });
    let rotate = best(few, |i| {
        let (old, new) = (key((1 << 40) + i), key((1 << 41) + i));
        black_box(ledger.rotate(old, new, (i % 4) as u32, 7, Some(Duration::ZERO), now));
    });
    let (left, mut gone) = (ledger.entries() as f64, 0.0);
    for _ in 0..60_000 {
        now = now + Duration::from_millis(100);
        gone += timed(|| ledger.sweep(now));
    }
    assert_eq!(ledger.entries(), 0, "everything expired");
    [silent, exchange, miss, born, rotate, quiet / 100.0 * 1e6, gone / left * 1e9]
}

/// Nanoseconds of an exchange in a map that keeps no deadline, no count and no order: it looks a session up, and changes it
/// twice. Behind a lock as any shared table is; without one the processor would overlap the exchanges.
fn plain_map(sessions: u64) -> f64 {
    let map: Mutex<hashbrown::HashMap<SessionKey, [u64; 8]>> = Mutex::new((0..sessions).map(|n| (key(n), [n; 8])).collect());
    let lock = || map.lock().expect("no panic");
    let mut dice = 88_172_645_463_325_252;
    best(OPERATIONS, |_| {
        let key = key(below(&mut dice, sessions));
        black_box(lock().get(&key));
        for change in 1..3 {
            if let Some(entry) = lock().get_mut(black_box(&key)) {
                entry.iter_mut().for_each(|word| *word = word.wrapping_add(change));
            }
        }
    })
}

/// Nanoseconds per operation in the fastest round; each call gets a number of its own.
fn best(operations: u64, mut operation: impl FnMut(u64)) -> f64 {
    let mut round = |round: u64| timed(|| (round * operations..(round + 1) * operations).for_each(&mut operation));
    (0..ROUNDS).map(&mut round).fold(f64::INFINITY, f64::min) * 1e9 / operations as f64
}

fn timed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64()
}

/// A key like those that hashing ids gives.
fn key(n: u64) -> SessionKey {
    let mut bytes = [0; 16];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&mix(n).to_le_bytes());
    high.copy_from_slice(&mix(!n).to_le_bytes());
    SessionKey(bytes)
}

fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn below(dice: &mut u64, n: u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    mix(*dice) % n
}

/// Resident memory of this process; pages are 4 KiB on the platforms this runs on.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
