//! Tests of the keyring: what holds, and a table of what must not.

use std::time::Duration;

use super::*;
use crate::model::identity::{PinAttributes, SameSite};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;
use crate::model::xorshift::Xorshift;

const OLD: (&str, &[u8]) = ("k1", &[1; 32]);
const NEW: (&str, &[u8]) = ("k2", &[2; 40]);
const ISSUED: Time = Time::from_secs(1_795_168_800);
const SEEN: Time = Time::from_secs(1_795_169_999);

fn ring(keys: &[(&'static str, &'static [u8])]) -> Keyring {
    Keyring::new(keys.iter().copied()).expect("legal keys")
}

fn pin(binding: Option<[u8; 16]>) -> Pin<'static> {
    Pin { release: "v42", backend: "b1", binding, issued: ISSUED, seen: SEEN, attributes: PinAttributes::default() }
}

/// A pin whose signature is right and whose payload is `payload`.
fn signed(ring: &Keyring, payload: &[u8]) -> String {
    let key = &ring.keys[0];
    let mac = key.mac_of("shop", payload).finalize().into_bytes();
    format!("1{}.{}", key.id, URL_SAFE_NO_PAD.encode([payload, &mac[..16]].concat()))
}

#[test]
fn a_pin_reads_as_it_was_signed() {
    let ring = ring(&[NEW, OLD]);
    let long = "n".repeat(64);
    for binding in [None, ring.binding(b"session")] {
        for (release, backend) in [("v42", "b1"), ("v", "b"), (long.as_str(), long.as_str())] {
            let pin = Pin { release, backend, ..pin(binding) };
            let value = ring.sign("shop", &pin);
            assert!(value.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet)), "{value}");
            let read = ring.verify("shop", value.as_bytes()).expect("our own pin");
            assert_eq!((read.release(), read.backend()), (release, backend));
            assert_eq!((read.binding, read.issued, read.seen, read.key), (binding, ISSUED, SEEN, 0));
        }
    }
    assert!(ring.sign("shop", &pin(ring.binding(b"session"))).len() <= 72);
}

#[test]
fn a_refreshed_pin_keeps_its_attributes_and_its_time_of_issue() {
    let (before, now) = (ring(&[OLD]), ring(&[NEW, OLD]));
    let full = "d".repeat(64);
    for same_site in [None, Some(SameSite::Strict), Some(SameSite::Lax), Some(SameSite::None)] {
        for domain in [None, Some("example.com"), Some(full.as_str())] {
            for expires in [None, Some(Time::from_secs(1_800_000_000))] {
                let secure = expires.is_some();
                let attributes = PinAttributes { domain, same_site, secure, partitioned: !secure, expires };
                let first = Pin { release: &full, backend: &full, attributes, ..pin(before.binding(b"session")) };
                let read = now.verify("shop", before.sign("shop", &first).as_bytes()).expect("our own pin");
                assert_eq!(read.attributes(), attributes);
                let later = SEEN + Duration::from_secs(600);
                let value = now.sign("shop", &read.refreshed(later, &now, Some(b"session")));
                let again = now.verify("shop", value.as_bytes()).expect("our own pin");
                assert_eq!((again.attributes(), again.issued, again.seen, again.key), (attributes, ISSUED, later, 0));
                assert!(now.is_bound(&again, b"session"));
            }
        }
    }
}

#[test]
fn what_was_not_signed_for_this_app_is_no_pin() {
    use PinFault::{BadSignature, Malformed, UnknownKey};
    let ring = ring(&[NEW]);
    let good = ring.sign("shop", &pin(None));
    let body = good.strip_prefix("1k2.").expect("the form of a pin").to_owned();
    let other = |keys: &[(&'static str, &'static [u8])], app: &str| self::ring(keys).sign(app, &pin(None));
    let again = |keep: usize| good[..keep].to_owned();
    let mac_only = URL_SAFE_NO_PAD.encode([0_u8; 16]);
    let swapped = format!("{}{}", &body[..body.len() - 22], &ring.sign("blog", &pin(None))[good.len() - 22..]);
    let payload = |octets: &[u8]| signed(&ring, octets);
    let times = [0_u8; 10];
    let table: Vec<(&str, String, PinFault)> = vec![
        ("nothing", String::new(), Malformed),
        ("the version alone", "1".into(), Malformed),
        ("no dot", "1k2".into(), Malformed),
        ("no body", "1k2.".into(), Malformed),
        ("no key id", format!("1.{body}"), UnknownKey),
        ("no version", format!("k2.{body}"), Malformed),
        ("version 0", format!("0k2.{body}"), Malformed),
        ("version 2", format!("2k2.{body}"), Malformed),
        ("two versions", format!("11k2.{body}"), UnknownKey),
        ("a key that never was", format!("1k9.{body}"), UnknownKey),
        ("a key id in capitals", format!("1K2.{body}"), UnknownKey),
        ("a key id cut short", format!("1k.{body}"), UnknownKey),
        ("a key id with a blank", format!("1k2 .{body}"), UnknownKey),
        ("a very long key id", format!("1{}.{body}", "k".repeat(4000)), UnknownKey),
        ("an old key, no longer configured", other(&[OLD], "shop"), UnknownKey),
        ("an old key under the new id", other(&[OLD], "shop").replacen("k1", "k2", 1), BadSignature),
        ("another secret of the same id", other(&[("k2", &[3; 32])], "shop"), BadSignature),
        ("a sibling app's", ring.sign("blog", &pin(None)), BadSignature),
        ("an app whose name this one begins with", ring.sign("sho", &pin(None)), BadSignature),
        ("an app whose name begins with this one", ring.sign("shopping", &pin(None)), BadSignature),
        ("an app in capitals", ring.sign("Shop", &pin(None)), BadSignature),
        ("no app", ring.sign("", &pin(None)), BadSignature),
        ("a sibling's signature under our payload", format!("1k2.{swapped}"), BadSignature),
        ("the last character missing", again(good.len() - 1), BadSignature),
        ("three characters missing", again(good.len() - 3), Malformed),
        ("two characters missing", again(good.len() - 2), Malformed),
        ("four characters missing", again(good.len() - 4), BadSignature),
        ("half of it", again(good.len() / 2), Malformed),
        ("one character more", format!("{good}A"), Malformed),
        ("four characters more", format!("{good}AAAA"), BadSignature),
        ("twice", format!("{good}{good}"), Malformed),
        ("padded", format!("{good}=="), Malformed),
        ("a blank before", format!(" {good}"), Malformed),
        ("a blank behind", format!("{good} "), Malformed),
        ("in quotation marks", format!("\"{good}\""), Malformed),
        ("percent-encoded", good.replacen('.', "%2e", 1), Malformed),
        ("standard base64", format!("1k2.{}", "+/".repeat(20)), Malformed),
        ("a zero octet", format!("1k2.\0{body}"), Malformed),
        ("not ASCII", format!("1k2.é{body}"), Malformed),
        ("a signature without payload", format!("1k2.{mac_only}"), BadSignature),
        ("fifteen octets", format!("1k2.{}", URL_SAFE_NO_PAD.encode([0_u8; 15])), Malformed),
        ("zeros", format!("1k2.{}", "A".repeat(80)), BadSignature),
        ("the longest possible", format!("1k2.{}", "A".repeat(323)), BadSignature),
        ("one octet longer", format!("1k2.{}", "A".repeat(324)), Malformed),
        ("4 KiB", format!("1k2.{}", "A".repeat(4096)), Malformed),
        ("a megabyte", format!("1k2.{}", "A".repeat(1 << 20)), Malformed),
        ("HAProxy's", "tomcat1~abc".into(), Malformed),
        ("HAProxy's insert", "s1|aBcDe|aBcDe".into(), Malformed),
        ("nginx's", "d41d8cd98f00b204e9800998ecf8427e".into(), Malformed),
        ("Apache's", ".tomcat1".into(), Malformed),
        ("F5's", "1677787402.36895.0000".into(), Malformed),
        ("a JWT", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln".into(), Malformed),
        ("signed: nothing", payload(b""), Malformed),
        ("signed: unknown flags", payload(&[&[128], &times[..], &[1], b"rb"].concat()), Malformed),
        ("signed: bound, but cut", payload(&[1, 2, 3]), Malformed),
        ("signed: a domain that is not there", payload(&[&[32], &times[..], &[1], b"rb"].concat()), Malformed),
        ("signed: an expiry that is not there", payload(&[&[64], &times[..], &[1], b"rb"].concat()), Malformed),
        ("signed: no time", payload(&[0, 0, 0]), Malformed),
        ("signed: no names", payload(&[&[0], &times[..]].concat()), Malformed),
        ("signed: no release", payload(&[&[0], &times[..], &[0], b"b"].concat()), Malformed),
        ("signed: no backend", payload(&[&[0], &times[..], &[1], b"r"].concat()), Malformed),
        ("signed: a length beyond the end", payload(&[&[0], &times[..], &[9], b"rb"].concat()), Malformed),
        ("signed: a name with a line break", payload(&[&[0], &times[..], &[1], b"rb\n"].concat()), Malformed),
        ("signed: a name of 65 bytes", payload(&[&[0], &times[..], &[1], b"r", &[b'b'; 65]].concat()), Malformed),
    ];
    assert!(table.len() >= 40);
    for (what, value, fault) in &table {
        assert_eq!(ring.verify("shop", value.as_bytes()), Err(*fault), "{what}");
        // Also after the thread has seen everything that was signed for others.
        assert_eq!(ring.recall("shop", value.as_bytes()).err(), Some(*fault), "{what}, from memory");
    }
    assert!(ring.verify("shop", good.as_bytes()).is_ok(), "the one that all of these imitate");
    assert!(ring.verify("shop", payload(&[&[0], &times[..], &[1], b"rb"].concat()).as_bytes()).is_ok());
}

#[test]
fn each_bit_of_a_pin_counts() {
    let ring = ring(&[NEW]);
    let good = ring.sign("shop", &pin(ring.binding(b"session"))).into_bytes();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(ring.verify("shop", &bad).is_err(), "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(ring.verify("shop", &good[..length]).is_err(), "the first {length} octets");
    }
}

#[test]
fn keys_rotate_without_losing_a_pin() {
    let (before, during, after) = (ring(&[OLD]), ring(&[NEW, OLD]), ring(&[NEW]));
    let value = before.sign("shop", &pin(before.binding(b"session")));
    let read = during.verify("shop", value.as_bytes()).expect("the old key still verifies");
    assert!(during.is_bound(&read, b"session"), "bound by the key that signed it");
    assert!(!during.is_bound(&read, b"other"));
    assert!(read.needs_refresh(SEEN, Duration::from_secs(1800)), "so that the old key can go");

    let value = during.sign("shop", &pin(during.binding(b"session")));
    assert_eq!(before.verify("shop", value.as_bytes()), Err(PinFault::UnknownKey));
    let read = after.verify("shop", value.as_bytes()).expect("signed with the first key");
    assert!(after.is_bound(&read, b"session") && read.key == 0);
}

#[test]
fn a_pin_is_bound_to_one_session_and_proxies_with_equal_keys_agree() {
    let (here, there) = (ring(&[NEW]), ring(&[NEW, OLD]));
    let value = here.sign("shop", &pin(here.binding(b"session")));
    let read = there.verify("shop", value.as_bytes()).expect("the same key");
    assert!(there.is_bound(&read, b"session"));
    assert!(!there.is_bound(&read, b"sessioN"));
    let free = here.sign("shop", &pin(None));
    let read = there.verify("shop", free.as_bytes()).expect("the same key");
    assert!(!there.is_bound(&read, b"session"), "not bound yet");
    assert_ne!(here.binding(b"session"), ring(&[OLD]).binding(b"session"));
}

#[test]
fn a_pin_is_refreshed_after_a_tenth_of_the_idle_timeout() {
    let ring = ring(&[NEW]);
    let read = ring.verify("shop", ring.sign("shop", &pin(None)).as_bytes()).expect("our own pin");
    let check = |seconds_later: u64, expected: bool| {
        let now = SEEN + Duration::from_secs(seconds_later);
        assert_eq!(read.needs_refresh(now, Duration::from_secs(1800)), expected, "{seconds_later} s");
    };
    check(0, false);
    check(180, false);
    check(181, true);
    assert!(!read.needs_refresh(Time(0), Duration::from_secs(1800)), "another proxy's clock is ahead");
}

#[test]
fn keys_that_make_no_keyring_are_named() {
    let check = |keys: &[(&str, &[u8])], expected: &str| {
        let fault = Keyring::new(keys.iter().copied()).expect_err(expected);
        assert_eq!(fault.to_string(), expected);
    };
    check(&[], "there is no key");
    check(&[("", &[1; 32])], "key id \"\": 1 to 16 letters, digits, - or _");
    check(&[("k.1", &[1; 32])], "key id \"k.1\": 1 to 16 letters, digits, - or _");
    check(&[("k1", &[1; 31])], "key \"k1\" has 31 bytes of at least 32");
    check(&[NEW, NEW], "key id \"k2\" is used twice");
    assert_eq!(format!("{:?}", ring(&[NEW, OLD])), "[\"k2\", \"k1\"]", "no secret is shown");
}

#[test]
fn no_value_makes_it_panic() {
    let (mut dice, ring) = (Xorshift(0xf0), ring(&[NEW]));
    for _ in 0..20_000 {
        let tail = dice.octets(240, b"ABCabc019-_.");
        assert!(ring.verify("shop", &tail).is_err());
        assert!(ring.verify("shop", &[b"1k2.", tail.as_slice()].concat()).is_err());
        assert!(ring.verify("shop", signed(&ring, &dice.octets(10, &[0, 1])).as_bytes()).is_err());
    }
}

#[test]
fn what_is_remembered_of_a_pin_is_for_its_app_and_keys_alone() {
    let (ring, rotated) = (ring(&[OLD]), ring(&[NEW]));
    let value = ring.sign("shop", &pin(ring.binding(b"session")));
    let first = ring.recall("shop", value.as_bytes()).expect("our own pin");
    let again = ring.recall("shop", value.as_bytes()).expect("from memory");
    assert_eq!((*first, again.release()), (*again, "v42"));
    assert_eq!(ring.recall("blog", value.as_bytes()).err(), Some(PinFault::BadSignature));
    assert_eq!(rotated.recall("shop", value.as_bytes()).err(), Some(PinFault::UnknownKey));
    let mut other = value.into_bytes();
    let last = other.len() - 1;
    other[last] ^= 2;
    assert!(ring.recall("shop", &other).is_err());
    // More pins than are kept: each is still read as it is.
    for n in 0..3000 {
        let name = format!("b{n}");
        let value = ring.sign("shop", &Pin { backend: &name, ..pin(None) });
        for _ in 0..2 {
            assert_eq!(ring.recall("shop", value.as_bytes()).expect("our own pin").backend(), name);
        }
    }
}

#[test]
fn that_a_pin_is_bound_is_remembered_of_its_session_alone() {
    let ring = ring(&[OLD]);
    let value = ring.sign("shop", &pin(ring.binding(b"session")));
    let [mine, other] = [SessionKey([1; 16]), SessionKey([2; 16])];
    for _ in 0..2 {
        let pin = ring.recall("shop", value.as_bytes()).expect("our own pin");
        assert!(!pin.is_bound_to(other, |pin| ring.is_bound(pin, b"another")));
        assert!(pin.is_bound_to(mine, |pin| ring.is_bound(pin, b"session")));
        assert!(pin.is_bound_to(mine, |_| unreachable!("it was asked before")));
    }
}
