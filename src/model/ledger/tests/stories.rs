//! Stories: commands, what each answered, and what the backends' counts show at the end.
//!
//! Ids are letters, backends are numbers, times are seconds since the epoch's story began. Answers and counts are
//! compared as text, so that a table reads without looking anything up.

use super::*;

struct Story {
    ledger: Ledger,
    counts: Vec<Arc<Counts>>,
    now: Time,
}

impl Story {
    fn new(rules: Rules) -> Story {
        let (ledger, counts) = ledger_of(4, rules, 3);
        Story { ledger, counts, now: at(0) }
    }

    /// One command; the answer in words.
    fn tell(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let id = |i: usize| key(u64::from(words[i].as_bytes()[0]));
        let number = |i: usize| words.get(i).map_or(0, |word| word.parse::<u32>().unwrap());
        let (ledger, now) = (&self.ledger, self.now);
        match words[0] {
            "born" => format!("{:?}", ledger.born(id(1), number(2), number(3), now)),
            "enter" => format!("{:?}", ledger.enter(id(1), Attention::Foreground, now)),
            "poll" => format!("{:?}", ledger.enter(id(1), Attention::Background, now)),
            "leave" => self.silent(|ledger| ledger.leave(id(1), now)),
            // rotate OLD NEW SLOT SILENCE|-
            "rotate" => {
                let silent = words[4].parse().ok().map(Duration::from_secs);
                format!("{:?}", ledger.rotate(id(1), id(2), number(3), 0, silent, now))
            }
            "sign" => {
                format!("{:?}", ledger.adopt(id(1), number(2), Adoption::SignedPin { issued: at(0) }, now, now))
            }
            "adopt" => format!("{:?}", ledger.adopt(id(1), number(2), Adoption::Unsigned, now, now)),
            // An exchange that was decided at that second honours the id now.
            "late" => {
                let decided_at = at(u64::from(number(3)));
                format!("{:?}", ledger.adopt(id(1), number(2), Adoption::SignedPin { issued: at(0) }, decided_at, now))
            }
            "logout" => ledger.end(id(1), EndReason::Logout, number(2), now).to_string(),
            "relocate" => ledger.relocate(id(1), number(2), now).to_string(),
            "restart" => ledger.lose(number(1), LossCause::Restart, now).to_string(),
            // Only those whose id is of that second or older.
            "proof" => ledger.lose_older(number(1), LossCause::Restart, at(u64::from(number(2))), now).to_string(),
            "doubt" => self.silent(|_| self.counts[number(1) as usize].doubt()),
            "vouch" => {
                let doubts = self.counts[number(2) as usize].doubts();
                self.silent(|ledger| ledger.vouch(id(1), number(2), doubts, now))
            }
            "evict" => {
                let idle = (words.len() > 3).then(|| Duration::from_secs(u64::from(number(3))));
                ledger.evict(&[number(1)], idle, number(2) as usize, now).to_string()
            }
            "wait" => {
                self.now = now + Duration::from_secs(u64::from(number(1)));
                String::new()
            }
            "sweep" => self.silent(|ledger| ledger.sweep(now)),
            "find" => match ledger.find(id(1), now) {
                None => "None".to_owned(),
                Some(found) => format!(
                    "{}@{}{}{}",
                    match found.standing {
                        Standing::Live { confirmed: true } => "live".to_owned(),
                        Standing::Live { confirmed: false } => "newborn".to_owned(),
                        Standing::Candidate => "candidate".to_owned(),
                        Standing::Ended(reason) => reason.as_str().to_owned(),
                    },
                    found.slot,
                    if found.alias { " alias" } else { "" },
                    if found.open > 0 { format!(" open {}", found.open) } else { String::new() },
                ),
            },
            other => panic!("no such command: {other}"),
        }
    }

    fn silent(&self, act: impl FnOnce(&Ledger)) -> String {
        act(&self.ledger);
        String::new()
    }
}

/// Tells a story and compares the answers, joined by `; `, and the counts, joined by ` | `.
#[track_caller]
fn check_by(rules: Rules, commands: &str, answers: &str, counts: &str) {
    let mut story = Story::new(rules);
    let mut given = Vec::new();
    for command in commands.split(';') {
        let answer = story.tell(command.trim());
        audit(&story.ledger, &story.counts);
        if !answer.is_empty() {
            given.push(answer);
        }
    }
    assert_eq!(given.join("; "), answers, "answers of: {commands}");
    let shown: Vec<String> = story.counts.iter().map(|counts| shown(counts)).collect();
    assert_eq!(shown.join(" | ").trim_end_matches([' ', '|']), counts, "counts after: {commands}");
}

#[track_caller]
fn check(commands: &str, answers: &str, counts: &str) {
    check_by(rules(), commands, answers, counts);
}

#[test]
fn a_newborn_counts_as_unconfirmed_until_its_client_comes_back() {
    check("born a 0; find a", "New; newborn@0", "unconfirmed 1 born 1");
    check("born a 0; enter a; find a", "New; Live; live@0 open 1", "engaged 1 born 1");
    check("born a 0; poll a", "New; Live", "engaged 1 born 1");
    check("born a 0; wait 59; sweep; find a", "New; newborn@0", "unconfirmed 1 born 1");
    check("born a 0; wait 60; sweep; find a", "New; unconfirmed@0", "born 1 -unconfirmed 1");
    check("born a 0; wait 60; enter a", "New; NotLive", "born 1 -unconfirmed 1");
    check("born a 0; wait 30; born a 0; wait 30; sweep", "New; Known", "born 1 -unconfirmed 1");
    check("enter a; leave a; find a", "NotLive; None", "");
}

#[test]
fn engaged_becomes_kept_alive_and_back() {
    check("born a 0; enter a; leave a; wait 299; sweep", "New; Live", "engaged 1 born 1");
    check("born a 0; enter a; leave a; wait 300; sweep", "New; Live", "kept 1 born 1");
    check("born a 0; enter a; leave a; wait 299; poll a; leave a; wait 1; sweep", "New; Live; Live", "kept 1 born 1");
    check("born a 0; enter a; leave a; wait 400; sweep; poll a", "New; Live; Live", "kept 1 born 1");
    check("born a 0; enter a; leave a; wait 400; sweep; enter a; leave a; wait 299; sweep", "New; Live; Live", "engaged 1 born 1");
    check("born a 0; enter a; leave a; wait 400; sweep; enter a; leave a; wait 300; sweep", "New; Live; Live", "kept 1 born 1");
}

#[test]
fn silence_ends_a_session_and_an_open_exchange_keeps_it() {
    check("born a 0; enter a; leave a; wait 1799; find a", "New; Live; live@0", "kept 1 born 1");
    check("born a 0; enter a; leave a; wait 1800; find a", "New; Live; idle@0", "born 1 -idle 1");
    check("born a 0; enter a; leave a; wait 1800; sweep", "New; Live", "born 1 -idle 1");
    check("born a 0; enter a; wait 90000; sweep; find a", "New; Live; live@0 open 1", "kept 1 born 1");
    check("born a 0; enter a; wait 9000; sweep; leave a; wait 1799; sweep; find a", "New; Live; live@0", "kept 1 born 1");
    check("born a 0; enter a; wait 9000; sweep; leave a; wait 1800; sweep", "New; Live", "born 1 -idle 1");
    check("born a 0; enter a; wait 9000; leave a; wait 1800; sweep", "New; Live", "born 1 -idle 1");
    check("born a 0; enter a; enter a; leave a; wait 9000; sweep; find a", "New; Live; Live; live@0 open 1", "kept 1 born 1");
    check("born a 0; enter a; leave a; leave a; leave a; find a", "New; Live; live@0", "engaged 1 born 1");
}

#[test]
fn tombstones_are_remembered_for_an_hour_and_then_forgotten() {
    check("born a 0; enter a; leave a; wait 5399; sweep; find a", "New; Live; idle@0", "born 1 -idle 1");
    check("born a 0; enter a; leave a; wait 5400; find a", "New; Live; None", "born 1 -idle 1");
    check("born a 0; enter a; leave a; wait 5400; sweep; sweep; find a", "New; Live; None", "born 1 -idle 1");
    // An exchange outlives its session: the tombstone waits for its end.
    check("born a 0; enter a; logout a; wait 9000; sweep; find a", "New; Live; true; logout@0 open 1", "born 1 -logout 1");
    check("born a 0; enter a; logout a; wait 9000; leave a; sweep; find a", "New; Live; true; None", "born 1 -logout 1");
}

#[test]
fn a_lifetime_ends_a_session_however_busy() {
    let rules = Rules { max_lifetime: Some(Duration::from_secs(1000)), ..rules() };
    check_by(rules, "born a 0; enter a; wait 999; find a", "New; Live; live@0 open 1", "kept 1 born 1");
    check_by(rules, "born a 0; enter a; wait 1000; sweep", "New; Live", "born 1 -lifetime 1");
    check_by(rules, "born a 0; enter a; wait 1000; enter a", "New; Live; NotLive", "born 1 -lifetime 1");
    check_by(rules, "born a 0; enter a; leave a; wait 1000; sign a 0; sweep", "New; Live; Live", "engaged 1 born 1 adopted 1 -lifetime 1");
    let long = Rules { max_lifetime: Some(Duration::from_secs(43_200)), ..rules };
    check_by(long, "born a 0; enter a; wait 2000; sweep; leave a; wait 1800; sweep", "New; Live", "born 1 -idle 1");
}

#[test]
fn a_birth_elsewhere_is_a_failover_and_a_birth_here_a_touch() {
    check("born a 0; enter a; born a 0; find a", "New; Live; Known; live@0 open 1", "engaged 1 born 1");
    check(
        "born a 0; enter a; born a 1; find a",
        "New; Live; Moved { from: 0 }; newborn@1 open 1",
        "born 1 -lost 1 lost/failover 1 | unconfirmed 1 born 1",
    );
    check("born a 0; born a 1", "New; Moved { from: 0 }", "born 1 -unconfirmed 1 | unconfirmed 1 born 1");
    check("born a 0; enter a; logout a; born a 0; find a", "New; Live; true; New; newborn@0 open 1", "unconfirmed 1 born 2 -logout 1");
    check("adopt a 0; born a 1; find a", "Candidate; New; newborn@1", " | unconfirmed 1 born 1");
    check(
        "born a 0; enter a; relocate a 1; relocate a 1; find a",
        "New; Live; true; false; live@1 open 1",
        "born 1 -moved 1 | engaged 1 arrived 1",
    );
    check("relocate a 1; adopt a 0; relocate a 1", "false; Candidate; false", "candidates 1");
}

#[test]
fn a_login_renames_the_session() {
    check(
        "born a 0; enter a; rotate a b 0 0; find b; find a",
        "New; Live; Renamed; live@0 open 1; live@0 alias open 1",
        "engaged 1 born 1 rotated 1",
    );
    check("born a 0; enter a; rotate a b 0 0; leave a; wait 29; find a", "New; Live; Renamed; live@0 alias", "engaged 1 born 1 rotated 1");
    check(
        "born a 0; enter a; rotate a b 0 0; leave a; wait 30; find a; find b",
        "New; Live; Renamed; None; live@0",
        "engaged 1 born 1 rotated 1",
    );
    // A WebSocket opened before the login keeps its session, and its end is found long after.
    check(
        "born a 0; enter a; rotate a b 0 0; wait 9000; sweep; find b; leave a; find b; find a",
        "New; Live; Renamed; live@0 open 1; live@0; None",
        "kept 1 born 1 rotated 1",
    );
    check(
        "born a 0; enter a; rotate a b 0 0; wait 60; enter b; rotate b c 0 1; leave b; wait 60; sweep; rotate c d 0 2; wait 9000; sweep; find d; leave a; find d",
        "New; Live; Renamed; Live; Renamed; Renamed; live@0 open 1; live@0",
        "kept 1 born 1 rotated 3",
    );
    check(
        "born a 0; enter a; rotate a b 0 0; enter a; leave a; leave a; find b",
        "New; Live; Renamed; Live; live@0",
        "engaged 1 born 1 rotated 1",
    );
    check("born a 0; enter a; rotate a b 0 0; logout a; find b", "New; Live; Renamed; true; logout@0 open 1", "born 1 rotated 1 -logout 1");
    check("born a 0; enter a; rotate a b 0 0; born a 0; find b", "New; Live; Renamed; Known; live@0 open 1", "engaged 1 born 1 rotated 1");
}

#[test]
fn parallel_logins_never_count_a_session_twice() {
    // Two answers, two new ids.
    check(
        "born a 0; enter a; enter a; rotate a b 0 0; rotate a c 0 0; leave a; leave a; find a; find b; find c",
        "New; Live; Live; Renamed; Renamed; live@0 alias; live@0 alias; live@0",
        "engaged 1 born 1 rotated 2",
    );
    // Two answers, the same new id.
    check(
        "born a 0; enter a; enter a; rotate a b 0 0; rotate a b 0 0; leave a; leave a; find b",
        "New; Live; Live; Renamed; Renamed; live@0",
        "engaged 1 born 1 rotated 1",
    );
    // To a session that lives already.
    check(
        "born a 0; enter a; born b 0; enter b; rotate a b 0 0; find b; leave a; leave b; find b",
        "New; Live; New; Live; Renamed; live@0 open 2; live@0",
        "engaged 1 born 2 rotated 1 -moved 1",
    );
    // To one that lives elsewhere, to a tombstone, to a candidate.
    check(
        "born a 0; enter a; born b 1; enter b; rotate a b 0 0; find b; leave b; leave a; find b",
        "New; Live; New; Live; Renamed; live@0 open 2; live@0",
        "engaged 1 born 1 rotated 1 | born 1 -lost 1 lost/failover 1",
    );
    check(
        "born b 0; logout b; born a 0; enter a; rotate a b 0 0; find b",
        "New; true; New; Live; Renamed; live@0 open 1",
        "engaged 1 born 2 rotated 1 -logout 1",
    );
    check(
        "adopt b 0; born a 0; enter a; rotate a b 0 0; find b",
        "Candidate; New; Live; Renamed; live@0 open 1",
        "engaged 1 born 1 rotated 1",
    );
    // Back and forth between two names.
    check(
        "born a 0; enter a; rotate a b 0 0; enter b; rotate b a 0 0; find a; leave a; find a; leave b; find a; find b",
        "New; Live; Renamed; Live; Renamed; live@0 open 2; live@0 open 1; live@0; live@0 alias",
        "engaged 1 born 1 rotated 2",
    );
    check("born a 0; enter a; rotate a a 0 0; find a", "New; Live; Renamed; live@0 open 1", "engaged 1 born 1");
}

#[test]
fn an_answer_to_a_dead_or_long_silent_id_is_a_new_session() {
    check("rotate a b 0 -; find b; find a", "NotLive(New); newborn@0; None", "unconfirmed 1 born 1");
    check(
        "born a 0; enter a; rotate a b 0 -; find b; find a",
        "New; Live; NotLive(New); newborn@0; live@0 open 1",
        "engaged 1 unconfirmed 1 born 2",
    );
    check(
        "born a 0; enter a; logout a; rotate a b 0 0; find a",
        "New; Live; true; NotLive(New); logout@0 open 1",
        "unconfirmed 1 born 2 -logout 1",
    );
    check(
        "born a 0; enter a; rotate a b 1 0; find a; find b",
        "New; Live; Replaced(New); lost@0 open 1; newborn@1",
        "born 1 -lost 1 lost/failover 1 | unconfirmed 1 born 1",
    );
    let rules = Rules { rotation_within: Some(Duration::from_secs(600)), ..rules() };
    check_by(rules, "born a 0; enter a; rotate a b 0 600", "New; Live; Renamed", "engaged 1 born 1 rotated 1");
    check_by(
        rules,
        "born a 0; enter a; rotate a b 0 601; find a",
        "New; Live; Replaced(New); lost@0 open 1",
        "unconfirmed 1 born 2 -lost 1 lost/replaced 1",
    );
    // The alias's session is lost with a stand-in that sets the old id again.
    check(
        "born a 0; enter a; rotate a b 0 0; born a 1; find b; find a; leave a; find a",
        "New; Live; Renamed; Moved { from: 0 }; lost@0; newborn@1 open 1; newborn@1",
        "born 1 rotated 1 -lost 1 lost/failover 1 | unconfirmed 1 born 1",
    );
}

#[test]
fn unknown_ids_are_adopted_by_proof() {
    check("sign a 0; find a", "Live; live@0", "engaged 1 adopted 1");
    check("adopt a 0; find a; enter a", "Candidate; candidate@0; NotLive", "candidates 1");
    check("adopt a 0; adopt a 0; find a", "Candidate; Live; live@0", "engaged 1 adopted 1");
    check("adopt a 0; adopt a 1; adopt a 1", "Candidate; Candidate; Live", " | engaged 1 adopted 1");
    check("adopt a 0; adopt a 1", "Candidate; Candidate", " | candidates 1");
    check("adopt a 0; sign a 1", "Candidate; Live", " | engaged 1 adopted 1");
    check("adopt a 0; wait 1800; find a; adopt a 0", "Candidate; None; Candidate", "candidates 1");
    check("sign a 0; sign a 0; sign a 1; find a", "Live; Known; Known; live@0", "engaged 1 adopted 1");
    check("born a 0; sign a 0", "New; Known", "engaged 1 born 1");
    check("adopt a 0; logout a; find a", "Candidate; false; None", "");
}

#[test]
fn the_application_revives_what_we_held_for_dead_but_no_ghosts() {
    check("born a 0; enter a; leave a; wait 1800; adopt a 0", "New; Live; Live", "engaged 1 born 1 adopted 1 -idle 1");
    check("born a 0; enter a; leave a; wait 1800; sign a 0", "New; Live; Live", "engaged 1 born 1 adopted 1 -idle 1");
    check("born a 0; wait 60; adopt a 0", "New; Live", "engaged 1 born 1 adopted 1 -unconfirmed 1");
    check("born a 0; wait 10; enter a; logout a; late a 0 9; find a", "New; Live; true; Ghost; logout@0 open 1", "born 1 -logout 1");
    check("born a 0; wait 10; enter a; logout a; late a 0 10", "New; Live; true; Ghost", "born 1 -logout 1");
    check("born a 0; wait 10; enter a; logout a; wait 5; late a 0 11", "New; Live; true; Live", "engaged 1 born 1 adopted 1 -logout 1");
    check("born a 0; enter a; leave a; evict 0 9; late a 0 0", "New; Live; 1; Ghost", "born 1 -evicted 1 lost/evicted 1");
    // Expired for us, then logged out: what is under way does not revive it either.
    check("born a 0; enter a; leave a; wait 1800; logout a; late a 0 1800", "New; Live; false; Ghost", "born 1 -idle 1");
}

#[test]
fn a_deletion_of_another_cookie_ends_nothing() {
    check("born a 0 7; enter a; logout a 8", "New; Live; false", "engaged 1 born 1");
    check("born a 0 7; enter a; logout a 7", "New; Live; true", "born 1 -logout 1");
    check("born a 0 7; enter a; logout a 0", "New; Live; true", "born 1 -logout 1");
    check("born a 0; enter a; logout a 8", "New; Live; true", "born 1 -logout 1");
    check("sign a 0; logout a 8; logout a 8", "Live; true; false", "adopted 1 -logout 1");
    check("logout a", "false", "");
}

#[test]
fn a_restart_loses_all_confirmed_sessions_of_its_backend() {
    check(
        "born a 0; enter a; born b 0; born c 1; enter c; sign d 0; restart 0; find a; find b",
        "New; Live; New; New; Live; Live; 2; lost@0 open 1; unconfirmed@0",
        "born 2 adopted 1 -lost 2 -unconfirmed 1 lost/restart 2 | engaged 1 born 1",
    );
    check("born a 0; enter a; leave a; wait 1800; restart 0", "New; Live; 0", "born 1 -idle 1");
}

#[test]
fn a_proof_takes_only_ids_from_before() {
    check(
        "born a 0; enter a; leave a; wait 10; born b 0; enter b; leave b; proof 0 5; find a; find b",
        "New; Live; New; Live; 1; lost@0; live@0",
        "engaged 1 born 2 -lost 1 lost/restart 1",
    );
}

#[test]
fn a_session_in_doubt_whose_id_is_replaced_is_lost_once() {
    // The first word counts, and it counts for one session: those of the next requests are no losses.
    check(
        "born a 0; enter a; born z 0; enter z; doubt 0; rotate a b 0 0; rotate a c 0 0; find a; enter b",
        "New; Live; New; Live; Replaced(New); NotLive(New); lost@0 open 1; Live",
        "engaged 2 unconfirmed 1 born 4 -lost 1 lost/restart 1",
    );
    check("born a 0; enter a; doubt 0; doubt 0; rotate a b 0 0", "New; Live; Replaced(New)", "unconfirmed 1 born 2 -lost 1 lost/restart 1");
    // Honoured, it is alive, and its next id is a renaming.
    check("born a 0; enter a; doubt 0; vouch a 0; rotate a b 0 0", "New; Live; Renamed", "engaged 1 born 1 rotated 1");
    // What was born or adopted since is in no doubt; what another backend knows, neither.
    check("doubt 0; born a 0; enter a; rotate a b 0 0", "New; Live; Renamed", "engaged 1 born 1 rotated 1");
    check("doubt 0; sign a 0; rotate a b 0 0", "Live; Renamed", "engaged 1 adopted 1 rotated 1");
    check(
        "born a 0; enter a; doubt 0; relocate a 1; rotate a b 1 0",
        "New; Live; true; Renamed",
        "born 1 -moved 1 | engaged 1 arrived 1 rotated 1",
    );
    check(
        "born a 0; enter a; doubt 0; vouch a 1; rotate a b 0 0",
        "New; Live; Replaced(New)",
        "unconfirmed 1 born 2 -lost 1 lost/restart 1",
    );
    // A renamed session is vouched for by its renaming; a later doubt is another one.
    check(
        "born a 0; enter a; rotate a b 0 0; doubt 0; enter z; born z 0; enter z; rotate b c 0 0",
        "New; Live; Renamed; NotLive; New; Live; Replaced(New)",
        "engaged 1 unconfirmed 1 born 3 rotated 1 -lost 1 lost/restart 1",
    );
}

#[test]
fn evictions_take_the_silent_first_and_spare_newborns() {
    check(
        "sign a 0; wait 400; sweep; sign b 0; born c 0; evict 0 1; find a",
        "Live; Live; New; 1; evicted@0",
        "engaged 1 unconfirmed 1 born 1 adopted 2 -evicted 1 lost/evicted 1",
    );
    check("sign a 0; sign b 1; evict 0 9", "Live; Live; 1", "adopted 1 -evicted 1 lost/evicted 1 | engaged 1 adopted 1");
    check("sign a 0; wait 100; sign b 0; evict 0 9 100; find b", "Live; Live; 1; live@0", "engaged 1 adopted 2 -evicted 1 lost/evicted 1");
    check("sign a 0; enter a; wait 100; evict 0 9 100; evict 0 9", "Live; Live; 0; 1", "adopted 1 -evicted 1 lost/evicted 1");
}

#[test]
fn shorter_rules_apply_to_sessions_that_exist() {
    let (ledger, counts) = ledger_of(2, rules(), 1);
    for n in 0..10 {
        ledger.born(key(n), 0, 0, at(0));
        ledger.enter(key(n), Attention::Foreground, at(0));
        ledger.leave(key(n), at(0));
    }
    ledger.set_rules(Rules { idle_timeout: Duration::from_secs(60), max_entries: 4, ..rules() }, at(30));
    assert_eq!((counts[0].live(), ledger.entries(), ledger.capacity()), (10, 10, 4), "confirmed sessions exceed a lower bound");
    ledger.sweep(at(60));
    assert_eq!(shown(&counts[0]), "born 10 -idle 10");
    ledger.set_rules(Rules { max_entries: 4, ..rules() }, at(61));
    assert_eq!(ledger.entries(), 4, "tombstones do not");
    audit(&ledger, &counts);
}

#[test]
fn surveys_show_what_lives() {
    let (ledger, _counts) = ledger_of(4, rules(), 2);
    ledger.adopt(key(1), 0, Adoption::SignedPin { issued: at(5) }, at(10), at(10));
    ledger.born(key(2), 0, 9, at(1000));
    ledger.born(key(3), 1, 0, at(1000));
    ledger.enter(key(3), Attention::Foreground, at(1010));
    let found = ledger.find(key(1), at(1020)).unwrap();
    assert_eq!((found.pinned, found.seen, found.born, found.ended_at), (at(5), at(10), at(10), None));
    assert_eq!(ledger.find(key(2), at(1020)).unwrap().birth_scope, 9);
    let summary = ledger.summary(&[0, 1], at(1020));
    assert_eq!((summary.live, summary.age, summary.idle), (2, [1, 0, 0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0, 0, 0]));
    assert_eq!(ledger.summary(&[7], at(1020)).live, 0);
    let mut list = ledger.list(&[0, 1], 10, at(1020));
    list.sort_by_key(|listed| (listed.slot, listed.age));
    let facts: Vec<_> = list.iter().map(|l| (l.slot, l.age.as_secs(), l.idle.as_secs(), l.confirmed, l.open)).collect();
    assert_eq!(facts, [(0, 20, 20, false, 0), (0, 1010, 1010, true, 0), (1, 20, 0, true, 1)]);
    assert!(list.iter().all(|listed| listed.handle.len() == 10));
    assert_eq!(ledger.list(&[0, 1], 2, at(1020)).len(), 2);
    assert_eq!(ledger.future(&[0], at(1020)).last_end, Some(at(2800)));
    assert_eq!(ledger.future(&[1], at(1020)).last_end, Some(at(2820)), "an open exchange may end now at the earliest");
    assert_eq!(ledger.future(&[7], at(1020)).last_end, None);
    let mut keys = Vec::new();
    ledger.for_each(|record| keys.push(record.key));
    assert_eq!(keys.len(), 3);
}

#[test]
fn forecasts_learn_from_sessions_that_left_and_from_no_others() {
    let (ledger, _) = ledger_of(4, rules(), 2);
    let check = |expected: Result<(), u64>| {
        let told = ledger.future(&[1], at(5000)).prospect.map(|_| ()).map_err(|few| few.ended);
        assert_eq!(told, expected);
    };
    // Somebody must be there to be forecast.
    ledger.born(key(999), 1, 0, at(4990));
    ledger.enter(key(999), Attention::Foreground, at(4995));
    for id in 0..60 {
        ledger.born(key(id), 0, 0, at(id));
        // A third never comes back, a third is lost.
        if id % 3 > 0 {
            ledger.enter(key(id), Attention::Foreground, at(id + 20));
            ledger.leave(key(id), at(id + 21));
        }
    }
    check(Err(0));
    for id in (1..60).step_by(3) {
        ledger.lose_one(key(id), LossCause::Restart, at(300));
    }
    check(Err(0));
    for id in (2..59).step_by(3) {
        ledger.end(key(id), EndReason::Logout, 0, at(300));
    }
    check(Err(19));
    // The last of them falls silent.
    ledger.sweep(at(4999));
    check(Ok(()));
    assert_eq!(ledger.future(&[0], at(5000)).prospect.map(|_| ()), Ok(()), "nobody is left there");
}
