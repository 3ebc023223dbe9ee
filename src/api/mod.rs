//! What the admin port speaks: the JSON shapes of API, CLI and status page.
//!
//! Fields may be added, never renamed or given another meaning: scripts read them. Shapes that come in refuse unknown fields, so
//! that a mistyped `"force"` is an error and not a command without it; shapes that go out are read leniently, so that an older
//! command line understands a newer process.

mod named;
mod order;
mod status;

pub use named::Named;
pub use order::*;
pub use status::*;

/// Where packages put the admin token. A process that is told of no other file uses it if it has none of its own yet, and commands look
/// there too: both must mean the same file.
pub const PACKAGED_TOKEN: &str = "/etc/tidegate/token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_document_of_the_manual_is_read() {
        let text = r#"{"version":"0.1.0","apps":{"shop":{"current":"v42","releases":{"v41":{"state":"draining",
          "sessions":{"live":12,"engaged":10,"kept_alive":2,"unconfirmed":3},
          "backends":{"a1":{"address":"127.0.0.1:8081","intent":"serve","health":"up","admission":"known_sessions",
          "incarnation":1,"in_flight":0,"sessions":{"live":12,"engaged":10,"kept_alive":2,"unconfirmed":3}}}}}}},
          "drains":[{"id":"d7","target":"shop/v41","state":"draining","owner":"operator","started":"2026-11-20T10:00:00Z",
          "initial":40,"remaining":12,"progress":0.7,"confident":true,
          "eta_seconds":{"p50":420,"p90":1500,"p99":1790},"upper_bound_seconds":1795,"deadline":null,
          "ended":{"logout":20,"idle":8,"moved":0,"lost":0,"evicted":0},"verdict":null}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.drains[0].eta_seconds.p99, Some(1790));
        // Written again it has the same names and values, plus what came later.
        let mut mine = serde_json::to_value(&status).unwrap();
        let backend = &mut mine["apps"]["shop"]["releases"]["v41"]["backends"]["a1"];
        assert_eq!(backend.as_object_mut().unwrap().remove("counted"), Some(serde_json::Value::Null));
        let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(mine["apps"], theirs["apps"]);
        for (name, value) in theirs["drains"][0].as_object().unwrap().iter().filter(|(name, _)| *name != "ended") {
            assert_eq!(&mine["drains"][0][name], value, "{name}");
        }
    }

    #[test]
    fn a_mistyped_field_of_a_command_is_an_error() {
        let check = |text: &str, fine: bool| assert_eq!(serde_json::from_str::<Promote>(text).is_ok(), fine, "{text}");
        check(r#"{"release":"v42"}"#, true);
        check(r#"{"release":"v42","from":null,"force":true}"#, true);
        check(r#"{"release":"v42","forced":true}"#, false);
        check(r#"{"from":"v41"}"#, false);
        check(r#"{"release":"v42","force":"yes"}"#, false);
    }

    #[test]
    fn backends_are_an_address_or_more_and_keep_their_order() {
        let read = serde_json::from_str::<Stage>;
        let stage = read(r#"{"name":"v43","backends":{"z":"h:1","a":{"address":"h:2","weight":3}}}"#).unwrap();
        assert_eq!(stage.backends.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["z", "a"]);
        assert!(matches!(stage.backends.get("a"), Some(StageBackend::Full(full)) if full.weight == Some(3)));
        for wrong in [
            r#"{"name":"v43","backends":{"a":"h:1","a":"h:2"}}"#,
            r#"{"name":"v43","backends":{"a":{"address":"h:2","wait":3}}}"#,
            r#"{"name":"v43","backends":["h:1"]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
