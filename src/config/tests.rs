//! The configuration as operators meet it: what is refused, where, and in which words.
//!
//! Bad inputs are changes of one good file, so a line number in an expectation is a line of that file.

use std::fs;
use std::path::Path;

use super::*;
use crate::model::settings::{CountFormat, Current, StatusSet};

/// A file without problems; line 1 is `listeners:`.
pub(super) const GOOD: &str = "listeners:
  - address: 0.0.0.0:8080
admin:
  address: 127.0.0.1:9180
apps:
  shop:
    session:
      idle_timeout: 30m
    health:
      path: /health
    current: v1
    releases:
      v1:
        backends:
          a1: 127.0.0.1:8081
          a2: {address: \"127.0.0.1:8082\", weight: 2}
      v2:
        backends:
          b1: 127.0.0.1:9081
  wiki:
    match: [{host: wiki.example.com}]
    releases:
      one:
        backends:
          w1: 127.0.0.1:7081
";

fn messages(text: &str) -> Vec<String> {
    match parse(text, "f.yaml") {
        Ok(_) => Vec::new(),
        Err(problems) => {
            problems.0.iter().map(|p| p.to_string().strip_prefix("f.yaml:").expect("the file comes first").to_owned()).collect()
        }
    }
}

/// In the good file `old` is replaced by `new`: there must be exactly one problem, which begins so.
#[track_caller]
fn check(old: &str, new: &str, expected: &str) {
    assert_eq!(GOOD.matches(old).count(), 1, "`{old}` must be once in the good file");
    let got = messages(&GOOD.replace(old, new));
    assert!(got.len() == 1 && got[0].starts_with(expected), "{new}\n expected {expected}\n got {got:#?}");
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(messages(GOOD), Vec::<String>::new());
}

#[test]
fn unknown_keys_name_the_key_that_was_meant() {
    check("idle_timeout: 30m", "idle-timeout: 30m", "8: apps.shop.session.idle-timeout: unknown key; did you mean `idle_timeout`?");
    check("idle_timeout: 30m", "idletimout: 30m", "8: apps.shop.session.idletimout: unknown key; did you mean `idle_timeout`?");
    check("listeners:", "server: {thread: 2}\nlisteners:", "1: server.thread: unknown key; did you mean `threads`?");
    check(
        "    health:",
        "    idle_timeout: 5m\n    health:",
        "9: apps.shop.idle_timeout: unknown key; it belongs under `apps.NAME.session`",
    );
    check("admin:", "token_file: x\nadmin:", "3: token_file: unknown key; it belongs under `admin`");
    check(
        "    health:",
        "    trusted_proxies: []\n    health:",
        "9: apps.shop.trusted_proxies: unknown key; it belongs to the top of the file",
    );
    check("weight: 2", "colour: red", "16: apps.shop.releases.v1.backends.a2.colour: unknown key; known here: address, route, weight");
    check("    health:", "    ramp: 10\n    health:", "9: apps.shop.ramp: `ramp` is reserved for a later version; remove it");
    check("    health:", "    choice: {path: /x}\n    health:", "9: apps.shop.choice: `choice` is reserved for a later version; remove it");
    check("admin:", "store: redis\nadmin:", "3: store: `store` is reserved for a later version; remove it");
    check("path: /health", "\"\": x", "10: apps.shop.health.: unknown key; known here: tcp, path");
}

#[test]
fn duplicate_keys_name_both_lines() {
    check(
        "    current: v1",
        "    current: v1\n    current: v2",
        "12: apps.shop.current: written twice, first in line 11; remove one of the two",
    );
    check("weight: 2", "weight: 2, weight: 3", "16: apps.shop.releases.v1.backends.a2.weight: written twice, first in line 16");
    check("  wiki:", "  shop:", "20: apps.shop: written twice, first in line 6; remove one of the two");
}

#[test]
fn durations_numbers_and_choices_say_how_they_are_written() {
    check("30m", "30", "8: apps.shop.session.idle_timeout: `30` has no unit; write 30s (units: ms, s, m, h, d)");
    check("30m", "half an hour", "8: apps.shop.session.idle_timeout: `half an hour` is not a duration; write one whole number");
    check("30m", "0s", "8: apps.shop.session.idle_timeout: `0s` is out of range; write a time from 100ms to 365d");
    check("30m", "", "8: apps.shop.session.idle_timeout: has no value; write `30m` (the default), or remove the line");
    check("30m", "[30m]", "8: apps.shop.session.idle_timeout: a text is expected, not a list; write one value");
    check("30m", "{a: b}", "8: apps.shop.session.idle_timeout: a text is expected, not a section");
    check(
        "weight: 2",
        "weight: 1001",
        "16: apps.shop.releases.v1.backends.a2.weight: `1001` is out of range; write a number from 0 to 1000",
    );
    check(
        "weight: 2",
        "weight: -1",
        "16: apps.shop.releases.v1.backends.a2.weight: `-1` is not a whole number; write a number from 0 to 1000",
    );
    check("weight: 2", "weight: 010", "16: apps.shop.releases.v1.backends.a2.weight: `010` is not a whole number");
    check("weight: 2", "weight: 0x10", "16: apps.shop.releases.v1.backends.a2.weight: `0x10` is not a whole number");
    check("weight: 2", "weight: 99999999999999999999", "16: apps.shop.releases.v1.backends.a2.weight: `99999999999999999999` is not");
    check("weight: 2", "backup: yes", "16: apps.shop.releases.v1.backends.a2.backup: `yes` is neither true nor false; write true");
    check(
        "weight: 2",
        "protocol: http3",
        "16: apps.shop.releases.v1.backends.a2.protocol: `http3` is not one of the choices; did you mean http1?",
    );
    check("weight: 2", "tls: yes", "16: apps.shop.releases.v1.backends.a2.tls: `yes` does not say how to use TLS; write true, null");
    check("weight: 2", "max_connections: 0", "16: apps.shop.releases.v1.backends.a2.max_connections: `0` is out of range");
    check(
        "idle_timeout: 30m",
        "pin: coookie",
        "8: apps.shop.session.pin: `coookie` is not one of the choices; did you mean cookie? write one of: cookie, route",
    );
    check(
        "idle_timeout: 30m",
        "max_entries: 1e6",
        "8: apps.shop.session.max_entries: `1e6` is not a whole number; write a number from 1 to 100000000",
    );
    check("idle_timeout: 30m", "max_entries: 0", "8: apps.shop.session.max_entries: `0` is out of range");
    check(
        "    health:",
        "    limits: {max_body: 64MB}\n    health:",
        "9: apps.shop.limits.max_body: `64MB` has an unknown unit; write 64MiB",
    );
    check(
        "    health:",
        "    limits: {max_body: 0B}\n    health:",
        "9: apps.shop.limits.max_body: no request could have a body; write null",
    );
    check("    health:", "    drain: {evict_per_second: 0}\n    health:", "9: apps.shop.drain.evict_per_second: `0` is out of range");
    check("    health:", "    balance: least_conn\n    health:", "9: apps.shop.balance: `least_conn` is not one of the choices; ");
    let webhook = |new: &str, expected: &str| {
        check("    health:", &format!("    drain: {{{new}}}\n    health:"), &format!("9: apps.shop.drain.{expected}"));
    };
    webhook(
        "webhook: ci.example.com/x",
        "webhook: this is not a URL to report to (not shown: it may hold a secret); write https://HOST/PATH",
    );
    webhook(
        "webhook: \"https://u:p@ci.example.com/x\"",
        "webhook: this is not a URL to report to (not shown: it may hold a secret); remove the user",
    );
    webhook("webhook: \"ftp://h/\"", "webhook: this is not a URL to report to (not shown: it may hold a secret); begin it with https://");
    webhook("webhook_key_file: /k", "webhook_key_file: signs nothing without `webhook`; add `webhook: https://…`");
    check("    health:", "    drain: {then: kill}\n    health:", "9: apps.shop.drain.then: `kill` is not one of the choices; ");
}

#[test]
fn probes_are_checked() {
    check("path: /health", "interval: 10ms", "10: apps.shop.health.interval: `10ms` is out of range; write a time from 100ms");
    check(
        "path: /health",
        "ready: 200-399",
        "10: apps.shop.health.ready: a list is expected, not `200-399`; write it in brackets: [200-399]",
    );
    check(
        "path: /health",
        "ready: [200-399, 4xx]",
        "10: apps.shop.health.ready[1]: `4xx` is not a status code or a range of them; write 400-499",
    );
    check("path: /health", "ready: []", "10: apps.shop.health.ready: no answer would mean up; write [200-399]");
    check("path: /health", "drain:", "10: apps.shop.health.drain: has no value; write `[]` (the default)");
    check("path: /health", "path: health", "10: apps.shop.health.path: `health` is not a path; begin it with `/`: `/health`");
    check("path: /health", "path: /h\n      tcp: true", "10: apps.shop.health.path: means nothing with `tcp: true`");
    check("path: /health", "port: 70000", "10: apps.shop.health.port: `70000` is out of range; write a number from 1 to 65535");
    check("path: /health", "instance_header: \"X Y\"", "10: apps.shop.health.instance_header: `X Y` cannot be sent as a name in HTTP");
    check("path: /health", "method: \"GET /\"", "10: apps.shop.health.method: `GET /` is not a method");
}

#[test]
fn sessions_are_checked() {
    let session = |new: &str, expected: &str| check("idle_timeout: 30m", new, &format!("8: apps.shop.session.{expected}"));
    session("cookies: [\"a b\"]", "cookies[0]: `a b` cannot be sent as a name in HTTP");
    session("cookies: JSESSIONID", "cookies: a list is expected, not `JSESSIONID`; write it in brackets: [JSESSIONID]");
    session("cookies: [A, B, A]", "cookies[2]: this value is in the list already, in line 8; remove one of the two");
    session("cookies: [tidegate_shop]", "cookies[0]: `tidegate_shop` is the name of a pin");
    session("{cookies: [], path_parameter: null}", "cookies: no session could be recognised; name the application's cookie");
    session("{cookies: [], pin: prefix}", "pin: `pin: prefix` writes into the application's cookie, and there is none");
    session("header: Cookie", "header: `Cookie` cannot carry a session id");
    session("query_parameter: \"a=b\"", "query_parameter: `a=b` is not the name of a parameter");
    session("background_paths: [/poll/*]", "background_paths[0]: `/poll/*` is not a path; use letters, digits");
    session("background_paths: [/poll, /poll/]", "background_paths[1]: this value is in the list already");
    session("ignore: {user_agents: [\"*\"]}", "ignore.user_agents[0]: `*` matches every client");
    session("ignore: {clients: [10.9]}", "ignore.clients[0]: `10.9` is not a network; write 10.0.0.0/8");
    session("keys: [{id: k1, file: /a}, {id: k1, file: /b}]", "keys[1].id: this id is taken in line 8; give each key an id");
    session("keys: [{id: \"k 1\", file: /a}]", "keys[0].id: `k 1` is not the id of a key");
    session("keys: [{id: k1}]", "keys[0].file: is missing; add it, for example `file: /etc/tidegate/k1.key`");
    session("count_probe: {url_path: /x}", "count_probe: it is not said how to read the answer; write either");
    session("count_probe: {url_path: /x, tomcat: true, json: a}", "count_probe: `tomcat` and `json` exclude each other");
    session("count_probe: {tomcat: true}", "count_probe.url_path: is missing; add it");
}

#[test]
fn releases_and_backends_are_checked() {
    check("current: v1", "current: v3", "11: apps.shop.current: there is no release `v3`; did you mean `v1`?");
    check("current: v1", "current: production", "11: apps.shop.current: there is no release `production`; write one of: v1, v2, by_health");
    check("    current: v1\n", "", "6: apps.shop.current: is missing, and there are 2 releases; write one of: v1, v2, by_health");
    check(
        "127.0.0.1:9081",
        "127.0.0.1:8082",
        "19: apps.shop.releases.v2.backends.b1: 127.0.0.1:8082 with the same path is a backend already, in line 16 (apps.shop.releases.v1.backends.a2)",
    );
    check(
        "b1: 127",
        "a1: 127",
        "19: apps.shop.releases.v2.backends.a1: the route `a1` is taken in line 15 (apps.shop.releases.v1.backends.a1); choose another name, or add `route:`",
    );
    check("weight: 2", "route: a1", "16: apps.shop.releases.v1.backends.a2: the route `a1` is taken in line 15");
    check("weight: 2", "route: a.b", "16: apps.shop.releases.v1.backends.a2.route: `a.b` cannot be a name here; use at most 64 letters");
    check("a1: 127", "tomcat.1: 127", "15: apps.shop.releases.v1.backends.tomcat.1: `tomcat.1` cannot be a route: what follows");
    check("a1: 127", "\"a~1\": 127", "15: apps.shop.releases.v1.backends.a~1: `a~1` cannot be a name here");
    check(
        "127.0.0.1:9081",
        "127.0.0.1",
        "19: apps.shop.releases.v2.backends.b1: `127.0.0.1` is not the address of a backend; add the port: 127.0.0.1:8080",
    );
    check(
        "127.0.0.1:9081",
        "http://10.0.0.5:9081/",
        "19: apps.shop.releases.v2.backends.b1: `http://10.0.0.5:9081/` is not the address of a backend; write host and port only: `10.0.0.5:9081`",
    );
    check("127.0.0.1:9081", "", "19: apps.shop.releases.v2.backends.b1: has no address; write it: `b1: 127.0.0.1:8081`");
    check(
        "127.0.0.1:9081",
        "{weight: 3}",
        "19: apps.shop.releases.v2.backends.b1.address: is missing; add it, for example `address: 127.0.0.1:8081`",
    );
    check("          b1: 127.0.0.1:9081\n", "", "18: apps.shop.releases.v2.backends: has no value; add `backends:`");
    check("          b1: 127.0.0.1:9081\n", "          {}\n", "18: apps.shop.releases.v2.backends: there is no backend; add one");
    check(
        "          b1: 127.0.0.1:9081\n",
        "          - 127.0.0.1:9081\n",
        "18: apps.shop.releases.v2.backends: names with a section each is expected, not a list",
    );
    check("      v2:", "      \"v 2\":", "17: apps.shop.releases.v 2: `v 2` cannot be a name here; use at most 64 letters");
    check("      v2:", "      by_health:", "17: apps.shop.releases.by_health: `by_health` has a meaning of its own");
    check("      v2:\n", "      v2:\n        path: v2\n", "18: apps.shop.releases.v2.path: `v2` is not a path; begin it with `/`");
    check("  wiki:", "  Wiki:", "20: apps.Wiki: `Wiki` has capital letters; write `wiki`");
    check("  wiki:", "  wi.ki:", "20: apps.wi.ki: `wi.ki` cannot be a name here; use at most 32 lower-case letters");
    check(
        "    match: [{host: wiki.example.com}]\n",
        "",
        "20: apps.wiki.match: any host with path / is served already, in line 6 (apps.shop.match)",
    );
    check("{host: wiki.example.com}", "", "21: apps.wiki.match: the app serves nothing");
    check(
        "wiki.example.com",
        "wiki.example.com:8080",
        "21: apps.wiki.match[0].host: `wiki.example.com:8080` has a port; write `wiki.example.com`",
    );
    check("wiki.example.com", "\"*\"", "21: apps.wiki.match[0].host: `*` is not a host name; leave `host` out");
    check(
        "{host: wiki.example.com}",
        "{host: a, path: /x/}, {host: A, path: /x}",
        "21: apps.wiki.match[1]: a with path /x is served already, in line 21",
    );
}

#[test]
fn one_mistake_is_one_problem() {
    check("    releases:\n      v1:", "    release:\n      v1:", "12: apps.shop.release: unknown key; did you mean `releases`?");
}

#[test]
fn the_process_is_checked() {
    check("0.0.0.0:8080", "8080", "2: listeners[0].address: `8080` is not an address to listen on; write 0.0.0.0:8080, or [::]:8080");
    check(
        "0.0.0.0:8080",
        "localhost:8080",
        "2: listeners[0].address: `localhost:8080` is not an address to listen on; write 127.0.0.1:8080",
    );
    check(
        "0.0.0.0:8080",
        "0.0.0.0:8080\n  - address: 127.0.0.1:8080",
        "3: listeners[1].address: 127.0.0.1:8080 is taken by 0.0.0.0:8080 in line 2",
    );
    check("  - address: 0.0.0.0:8080\n", "  - {}\n", "2: listeners[0].address: is missing; add it, for example `address: 0.0.0.0:8080`");
    check("  - address: 0.0.0.0:8080\n", "  []\n", "1: listeners: there is no listener; add one");
    check("listeners:\n  - address: 0.0.0.0:8080\n", "", "1: listeners: is missing; add `listeners:`");
    check("0.0.0.0:8080", "0.0.0.0:8080\n    tls: {}", "3: listeners[0].tls.certificates: is missing");
    check(
        "0.0.0.0:8080",
        "0.0.0.0:8080\n    tls: {certificates: []}",
        "3: listeners[0].tls.certificates: there is no certificate; add one",
    );
    check(
        "127.0.0.1:9180",
        "0.0.0.0:9180",
        "3: admin.token_file: others can reach 0.0.0.0:9180, and no token is asked for; add `token_file:",
    );
    check(
        "127.0.0.1:9180",
        "127.0.0.1:8080",
        "4: admin.address: 127.0.0.1:8080 is taken by the listener 0.0.0.0:8080 in line 2; use another port",
    );
    check(
        "127.0.0.1:9180",
        "unix:admin.sock",
        "4: admin.address: `unix:admin.sock` is not the address of a socket; write an absolute path",
    );
    check("admin:", "server: {grace_period: 30}\nadmin:", "3: server.grace_period: `30` has no unit; write 30s");
    check("admin:", "server: {access_log: {format: xml}}\nadmin:", "3: server.access_log.format: `xml` is not one of the choices");
    check(
        "admin:",
        "trusted_proxies: 10.0.0.0/8\nadmin:",
        "3: trusted_proxies: a list is expected, not `10.0.0.0/8`; write it in brackets",
    );
    check("admin:", "state: /var/lib/tidegate\nadmin:", "3: state: a section is expected, not `/var/lib/tidegate`; write its keys");
}

#[test]
fn what_is_not_plain_yaml_is_refused() {
    check("current: v1", "current: &c v1", "11: apps.shop.current: anchors (`&name`) are not allowed; write the value out");
    check("current: v1", "current: !!str v1", "11: apps.shop.current: tags (");
    check("      v2:\n", "      v2:\n        <<: {path: /x}\n", "18: apps.shop.releases.v2.<<: merge keys (`<<`) are not allowed");
    check("current: v1", "current: \"v1", "11: not valid YAML: ");
    check("    current: v1", "\tcurrent: v1", "11: indented with a tab; indent with spaces");
    check("    current: v1", "    ? [a, b]\n    : c\n    current: v1", "11: apps.shop.?: a list or mapping stands where a key should");
    check("  wiki:", "---\n  wiki:", "20: a second document begins here; keep one document");
    check("current: v1", "current: v\u{0}1", "11: there is a U+0000 character in this line; remove it");
    let whole = |text: &str, expected: &str| {
        let got = messages(text);
        assert!(got.len() == 1 && got[0].starts_with(expected), "{got:?}");
    };
    whole("", "1: the file is empty; start from conf/minimal.yaml");
    whole("# only a comment\n", "1: the file is empty");
    whole("hello", "1: a section is expected, not `hello`");
    whole("- a\n- b\n", "1: a section is expected, not a list");
}

#[test]
fn every_problem_is_reported_in_one_go_sorted_by_line() {
    let text = GOOD
        .replace("0.0.0.0:8080", "8080")
        .replace("30m", "30")
        .replace("path: /health", "pth: /health")
        .replace("current: v1", "current: v9")
        .replace("weight: 2", "weight: many, route: a1")
        .replace("127.0.0.1:9081", "nowhere")
        .replace("wiki.example.com", "wiki example");
    let lines: Vec<usize> = parse(&text, "f").unwrap_err().0.iter().map(|p| p.line).collect();
    assert_eq!(lines, [2, 8, 10, 11, 16, 16, 19, 21]);
    let json = serde_json::to_value(parse(&text, "f").unwrap_err()).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({"file": "f", "line": 8, "at": "apps.shop.session.idle_timeout",
        "what": "`30` has no unit", "remedy": "write 30s (units: ms, s, m, h, d)"})
    );
}

#[test]
fn names_are_text_whatever_yaml_would_make_of_them() {
    for name in ["no", "on", "null", "42", "1e3", "0x1f", "010", "true", "2026-11-20", "1.2.3", "12_000"] {
        let config =
            parse(&GOOD.replace("      v2:", &format!("      {name}:")).replace("current: v1", &format!("current: '{name}'")), "f")
                .unwrap();
        assert_eq!((config.apps[0].releases[1].name.as_str(), &config.apps[0].current), (name, &Current::Release(name.to_owned())));
    }
}

#[test]
fn line_endings_byte_order_marks_and_empty_sections_are_no_problem() {
    let good = parse(GOOD, "f").unwrap();
    assert_eq!(parse(&GOOD.replace('\n', "\r\n"), "f").as_ref(), Ok(&good));
    assert_eq!(parse(&format!("\u{feff}{GOOD}"), "f").as_ref(), Ok(&good));
    assert_eq!(parse(&format!("%YAML 1.2\n---\n{GOOD}...\n"), "f").as_ref(), Ok(&good));
    assert_eq!(parse(&GOOD.replace("  address: 127.0.0.1:9180\n", ""), "f").as_ref(), Ok(&good));
    let crlf = messages(&GOOD.replace("30m", "30").replace('\n', "\r\n"));
    assert!(crlf[0].starts_with("8: apps.shop.session.idle_timeout"), "{crlf:?}");
}

#[test]
fn values_arrive_where_they_belong() {
    let config = parse(RICH, "f").unwrap_or_else(|p| panic!("{p}"));
    let app = &config.apps[0];
    assert_eq!(config.server.access_log, None);
    assert_eq!(config.admin.address, AdminAddress::Unix("/run/t.sock".into()));
    assert_eq!(config.trusted_proxies[0].to_string(), "10.0.0.0/8");
    assert_eq!(app.settings.health.ready, StatusSet(vec![(200, 299), (401, 401)]));
    assert_eq!(app.settings.limits.max_body, Some(64 << 20));
    assert_eq!(app.settings.session.path_parameter, None);
    assert_eq!(app.settings.session.count_probe.as_ref().map(|c| c.format.clone()), Some(CountFormat::Json("a.b".into())));
    assert_eq!((app.matches[0].host.as_deref(), app.matches[0].path.as_str()), (Some("*.example.com"), "/shop"));
    assert_eq!(app.releases[1].backends[0].address.host, "::1");
    assert_eq!(app.settings.drain.move_points[0].method, "POST");
    assert_eq!(app.settings.drain.webhook.as_ref().map(|w| w.address.to_string()), Some("ci.example:8443".to_owned()));
}

#[test]
fn what_is_exported_reads_back_equal() {
    for text in [GOOD, RICH, &reference()] {
        let config = parse(text, "f").unwrap();
        let yaml = export(&config);
        assert_eq!(parse(&yaml, "export").unwrap_or_else(|p| panic!("{p}\n{yaml}")), config, "{yaml}");
    }
    assert!(!export(&parse(GOOD, "f").unwrap()).contains("balance"), "defaults are left out");
}

#[test]
fn every_file_of_conf_is_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "yaml")).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        // The keys that they name are their operator's.
        parse(&fs::read_to_string(&file).unwrap(), &file.display().to_string()).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

/// As little as possible left at its default.
const RICH: &str = r#"
server: {threads: 3, grace_period: 1m, lame_duck: 15s, upgrade_timeout: 2m, header_timeout: 5s, access_log: null}
listeners:
  - address: "[::]:8443"
    tls: {certificates: [{certificate: /a.pem, key: /a.key}, {certificate: "/b c.pem"}]}
  - {address: 127.0.0.1:0}
admin: {address: "unix:/run/t.sock", token_file: /t}
state: {directory: /var/lib/tidegate}
trusted_proxies: [10.1.2.3/8, 192.0.2.1, "2001:db8::/32"]
apps:
  shop:
    match: [{host: "*.Example.com.", path: /shop/}, {host: "[::1]"}]
    session:
      cookies: ["on", "null", "1"]
      path_parameter: null
      query_parameter: PHPSESSID
      header: Mcp-Session-Id
      pin: route
      pin_on: first_response
      idle_timeout: 90s
      max_lifetime: 12h
      confirm_within: 1500ms
      rotation_within: 20m
      engaged_within: 1m
      background_paths: [/poll/]
      max_entries: 5
      ignore: {clients: [10.9.0.0/16], user_agents: ["kube-probe/*", "a: b #c"]}
      keys: [{id: k2, file: /k2}, {id: "1", file: /k1}]
      count_probe: {url_path: "/m?a=b", user_file: /u, json: a.b}
    balance: consistent
    when_all_draining: refuse
    failover: "off"
    failover_wait: 3s
    health: {path: "/h?x", method: head, host: "h:80", port: 81, interval: 3s, timeout: 500ms, rise: 1, fall: 4, ready: [200-299, 401], drain: [503], instance_header: X-I}
    limits: {max_connections: 9, queue: {size: 0, timeout: 1s}, retry_budget: {percent: 5, least_per_second: 1}, max_body: 64MiB}
    timeouts: {connect: 2s, read: 1m, write: 2m, idle: 3m, tunnel: 2h}
    streaming_paths: [/events]
    slow_start: 30s
    drain: {deadline: 4h, then: move_idle, evict_per_second: 7, tunnels: 0s, move_points: [{method: post, path: /logout/}], no_replay: [/], webhook: "https://ci.example:8443/h?a=b", webhook_key_file: /w}
    not_mine: {status: [], header: X-Not-Mine, location: "/login?x"}
    current: by_health
    releases:
      42:
        path: /shop-old/
        backends:
          a1: {address: "h.example:1", route: r1, weight: 0, backup: true, max_connections: 3, tls: true, protocol: http2}
          "null": {address: "h.example:2", tls: {server_name: s.example, verify: false}}
      "yes":
        backends:
          b1: "[::1]:8080"
"#;

#[test]
fn the_state_is_where_the_supervisor_has_made_room_for_it() {
    let check = |named: Option<&str>, expected: &str| {
        assert_eq!(State::of_service(named.map(OsStr::new)).directory, PathBuf::from(expected), "{named:?}");
    };
    check(None, "./tidegate-state");
    check(Some("/var/lib/tidegate"), "/var/lib/tidegate");
    check(Some("/var/lib/tidegate:/var/lib/more"), "/var/lib/tidegate");
    check(Some(""), "./tidegate-state");
    check(Some("elsewhere"), "./tidegate-state");
}
