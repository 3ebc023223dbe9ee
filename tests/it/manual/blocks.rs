//! Blocks of configuration in the documents work: ours by `tidegate check`, those of other programs by the programs themselves.

use std::process::Command;

use super::documents::{Block, collect, documents};
use crate::examples;
use crate::nginx::whole_file;
use crate::process::{Scratch, require_file};
use crate::tidegate::check;

/// Top-level keys of a whole file.
const WHOLE: [&str; 6] = ["server", "listeners", "admin", "state", "trusted_proxies", "apps"];

/// By which a block is known to be for another program: Prometheus, Compose, Kubernetes.
const OTHERS: [&str; 5] = ["scrape_configs", "rule_files", "groups", "services", "apiVersion"];

/// Keys without indentation, once that of the first line is taken away.
fn top_keys(text: &str) -> (String, Vec<String>) {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let indent = first.len() - first.trim_start().len();
    let text: String = text.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
    let keys = text.lines().filter(|line| !line.starts_with([' ', '#', '-'])).filter_map(|line| line.split_once(':'));
    let keys = keys.map(|(key, _)| key.trim().to_owned()).collect();
    (text, keys)
}

/// A whole file from a block that may be a part of an app; `None` if it is no configuration of ours.
fn whole(text: &str) -> Option<String> {
    let (text, keys) = top_keys(text);
    let reference = std::fs::read_to_string(examples::folder().join("reference.yaml")).expect("the reference is there");
    let apps = reference.split("\napps:").nth(1).expect("the reference has apps");
    let of_app = |key: &String| apps.lines().any(|line| line.starts_with(&format!("    {key}:")));
    let listeners = "listeners: [{address: \"0.0.0.0:8080\"}]\n";
    let releases = "    releases: {v1: {backends: {a1: \"127.0.0.1:8081\"}}}\n";
    if keys.iter().all(|key| WHOLE.contains(&key.as_str())) {
        let missing = |key: &str, text: &str| if keys.iter().any(|k| k == key) { String::new() } else { text.to_owned() };
        return Some(format!("{text}{}{}", missing("listeners", listeners), missing("apps", &format!("apps:\n  shop:\n{releases}"))));
    }
    if keys.iter().all(of_app) {
        let part: String = text.lines().map(|line| format!("    {line}\n")).collect();
        let releases = if keys.iter().any(|key| key == "releases") { "" } else { releases };
        return Some(format!("{listeners}apps:\n  shop:\n{part}{releases}"));
    }
    None
}

/// Passes `tidegate check`, with files below /etc/tidegate that exist.
fn passes(text: &str) -> Result<(), String> {
    let scratch = Scratch::new("manual");
    for key in ["k1.key", "k2.key"] {
        scratch.write(key, &"0123456789abcdef".repeat(4));
    }
    scratch.write("manager-user", "user:password");
    let text = text.replace("/etc/tidegate/", &format!("{}/", scratch.path().display()));
    let result = check(&text);
    if result.code == 0 { Ok(()) } else { Err(format!("{}{}\n{text}", result.stdout, result.stderr)) }
}

#[test]
fn every_example_and_every_block_of_yaml_passes_tidegate_check() {
    let mut files = Vec::new();
    collect(&examples::folder(), "yaml", &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        passes(&text).unwrap_or_else(|problems| panic!("{}: {problems}", file.display()));
    }
    let mut seen = 0;
    for document in documents() {
        for Block { at, text, .. } in document.blocks("yaml") {
            match whole(&text) {
                Some(whole) => {
                    passes(&whole).unwrap_or_else(|problems| panic!("{at}: {problems}"));
                    seen += 1;
                }
                None => {
                    let others = top_keys(&text).1.iter().any(|key| OTHERS.contains(&key.as_str()));
                    assert!(others, "{at}: neither a whole file nor a part of an app");
                }
            }
        }
    }
    assert!(seen >= 6, "blocks were found: {seen}");
}

#[test]
fn a_wrong_block_is_noticed() {
    let check = |text: &str, fine: bool| assert_eq!(whole(text).is_some_and(|whole| passes(&whole).is_ok()), fine, "{text}");
    check("session: {pin: cookie}\n", true);
    check("    session:\n      pin: route\n    balance: round_robin\n", true);
    check("session: {pim: cookie}\n", false);
    check("server: {watch: true}\n", true);
    check("server: {wotch: true}\n", false);
    check("seshion: {pin: cookie}\n", false);
}

/// `a.b: c` as it stands in a file; `None` for other words, and for those that leave something out.
fn setting(word: &str) -> Option<String> {
    let (path, value) = word.split_once(": ")?;
    let is_path = path.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c));
    let is_whole = !value.contains('…') && (!value.starts_with('{') || value.contains(": "));
    // `current` names a release of some example, which is not in the file made here.
    (is_path && is_whole && !path.starts_with("current")).then(|| {
        let mut text = String::new();
        for (depth, key) in path.split('.').enumerate() {
            text += &format!("{}{key}:\n", "  ".repeat(depth));
        }
        format!("{} {value}\n", text.trim_end())
    })
}

#[test]
fn every_setting_that_is_mentioned_passes_tidegate_check() {
    let mut seen = 0;
    for document in documents() {
        for word in document.words() {
            let Some(whole) = setting(&word).and_then(|text| whole(&text)) else { continue };
            passes(&whole).unwrap_or_else(|problems| panic!("{}: `{word}`: {problems}", document.name));
            seen += 1;
        }
    }
    assert!(seen > 30, "settings were found: {seen}");
    assert_eq!(setting("health.drain: [503]").as_deref(), Some("health:\n  drain: [503]\n"));
}

fn blocks(language: &str) -> Vec<Block> {
    let blocks: Vec<Block> = documents().iter().flat_map(|document| document.blocks(language)).collect();
    assert!(!blocks.is_empty(), "no block is in {language}");
    blocks
}

fn accepts(at: &str, mut command: Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{at}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_other_programs_accept_their_own_blocks() {
    require_file("/usr/sbin/haproxy", "haproxy");
    require_file("/usr/sbin/apache2", "apache2-bin");
    require_file("/usr/sbin/nginx", "nginx");
    let scratch = Scratch::new("peers");
    let folder = scratch.path().display().to_string();
    for Block { at, text, .. } in blocks("haproxy") {
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-c", "-f"]).arg(scratch.write("haproxy.cfg", &text));
        accepts(&at, command);
    }
    for Block { at, text, .. } in blocks("apache") {
        let modules = [
            "mpm_event",
            "authz_core",
            "proxy",
            "proxy_http",
            "proxy_balancer",
            "lbmethod_byrequests",
            "lbmethod_bybusyness",
            "slotmem_shm",
        ];
        let modules = modules.map(|module| format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n")).concat();
        let head = format!(
            "ServerName localhost\nServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\nErrorLog {folder}/error.log\n"
        );
        let mut command = Command::new("/usr/sbin/apache2");
        command.args(["-t", "-f"]).arg(scratch.write("apache.conf", &format!("{modules}{head}{text}")));
        accepts(&at, command);
    }
    for Block { at, text, .. } in blocks("nginx") {
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-t", "-e", "stderr", "-p", &folder, "-c"]).arg(scratch.write("nginx.conf", &whole_file(&folder, &text)));
        accepts(&at, command);
    }
}
