//! What the documents name is there: files, anchors, keys, metrics, variables of the environment.

use std::fs;

use tidegate::serve::admin::metrics::metrics_table;

use super::documents::{Document, collect, documents, root};
use crate::examples;

/// Folders of the project, by which a file is recognised.
const FOLDERS: [&str; 7] = ["src/", "conf/", "tests/", "benches/", "deploy/", ".ci/", ".cargo/"];

/// The file that a word in backticks names, if it names one of ours.
fn file_of(word: &str) -> Option<&str> {
    let first = word.split([' ', ':']).next()?;
    let plain = first.chars().all(|c| c.is_ascii_alphanumeric() || "./_-".contains(c));
    (plain && FOLDERS.iter().any(|folder| first.starts_with(folder))).then_some(first)
}

#[test]
fn every_file_that_is_named_exists() {
    let mut seen = 0;
    for document in documents() {
        for word in document.words() {
            let Some(file) = file_of(&word) else { continue };
            seen += 1;
            assert!(root().join(file).exists() || document.folder().join(file).exists(), "{}: `{file}` does not exist", document.name);
        }
    }
    let mut commented = Vec::new();
    collect(&examples::folder(), "yaml", &mut commented);
    for example in commented {
        let text = fs::read_to_string(&example).unwrap();
        for file in text.split([' ', '(', ')', ',', '\n', '`']).map(|word| word.trim_end_matches(['.', ':'])).filter_map(file_of) {
            // A path on somebody's own machine that happens to begin so.
            if file == "conf/server.xml" {
                continue;
            }
            seen += 1;
            assert!(root().join(file).exists(), "{}: {file} does not exist", example.display());
        }
    }
    assert!(seen > 15, "files were found: {seen}");
}

fn check_link(document: &Document, link: &str) -> Result<(), String> {
    if link.contains("://") {
        return Ok(());
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = if file.is_empty() { root().join(&document.name) } else { document.folder().join(file) };
    if !path.exists() {
        return Err(format!("{file} does not exist"));
    }
    if anchor.is_empty() || path.extension().is_none_or(|ending| ending != "md") {
        return Ok(());
    }
    let there = Document { name: link.to_owned(), text: fs::read_to_string(path).map_err(|error| error.to_string())? };
    if there.anchors().iter().any(|a| a == anchor) { Ok(()) } else { Err(format!("{link}: no such heading among {:?}", there.anchors())) }
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for document in documents() {
        for link in document.links() {
            seen += 1;
            check_link(&document, &link).unwrap_or_else(|wrong| panic!("{}: {wrong}", document.name));
        }
    }
    assert!(seen > 15, "links were found: {seen}");
    let readme = Document { name: "README.md".to_owned(), text: "## Here\n".to_owned() };
    assert!(check_link(&readme, "conf/no.yaml").is_err() && check_link(&readme, "#nowhere-at-all").is_err());
}

#[test]
fn readme_leads_to_every_example_and_to_all_of_deploy() {
    let readme = documents().into_iter().find(|document| document.name == "README.md").expect("README is there");
    let links = readme.links();
    let mut files = Vec::new();
    collect(&examples::folder(), "yaml", &mut files);
    for file in files {
        let name = file.strip_prefix(root()).expect("it is ours").display().to_string();
        assert!(links.contains(&name), "README has no link to {name}");
    }
    // Whoever looks there finds files and folders; README has a link to each, or to what is in it.
    let entries = fs::read_dir(root().join("deploy")).expect("deploy/ is there").flatten().collect::<Vec<_>>();
    assert!(entries.len() > 8, "deploy/ has {}", entries.len());
    for entry in entries {
        let (path, name) = (entry.path(), format!("deploy/{}", entry.file_name().display()));
        // Of a folder whose use is told file by file, each.
        let mut inside = Vec::new();
        if path.is_dir() && !links.contains(&name) {
            inside.extend(
                fs::read_dir(&path).expect("it was just listed").flatten().map(|inner| format!("{name}/{}", inner.file_name().display())),
            );
        } else {
            inside.push(name);
        }
        let missing = inside.iter().find(|file| !links.iter().any(|link| link == *file || link.starts_with(&format!("{file}/"))));
        assert_eq!(missing, None, "README has no link to it");
    }
}

#[test]
fn every_key_that_is_named_is_in_the_reference() {
    let reference = fs::read_to_string(examples::folder().join("reference.yaml")).unwrap();
    let keys: Vec<&str> =
        reference.lines().filter_map(|line| line.trim_start_matches([' ', '#', '-']).split_once(':')).map(|(key, _)| key).collect();
    let sections = ["server", "admin", "state", "session", "health", "limits", "timeouts", "drain", "not_mine"];
    let wrong = |word: &str| {
        let plain = word.contains('.') && word.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c)) && !word.contains("..");
        let mut parts = word.split('.');
        (plain && parts.next().is_some_and(|first| sections.contains(&first))).then(|| parts.find(|part| !keys.contains(part)).is_some())
    };
    let mut seen = 0;
    for document in documents() {
        for word in document.words() {
            let named = word.split(':').next().unwrap_or_default();
            // `state.db` is a file, and so is `state.rs`.
            let is_file = [".db", ".rs"].iter().any(|ending| named.ends_with(ending));
            if let Some(wrong) = wrong(named).filter(|_| !is_file) {
                seen += 1;
                assert!(!wrong, "{}: `{named}` is no key", document.name);
            }
        }
    }
    assert!(seen > 30, "keys were found: {seen}");
    assert_eq!([wrong("session.pin"), wrong("session.pim"), wrong("pin")], [Some(false), Some(true), None]);
}

#[test]
fn every_metric_that_is_named_is_exported() {
    let table = metrics_table();
    let known: Vec<&str> = table.split('`').filter(|word| word.starts_with("tidegate_")).collect();
    let mut seen = 0;
    for document in documents() {
        for word in document.words() {
            let name = word.split(['{', '<', ' ']).next().unwrap_or_default();
            // Cookies are called after their app.
            if !name.starts_with("tidegate_") || ["tidegate_", "tidegate_shop"].contains(&name) {
                continue;
            }
            seen += 1;
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(known.contains(&series) || known.contains(&name), "{}: `{name}` is no metric", document.name);
        }
    }
    assert!(seen > 20, "metrics were found: {seen}");
}

#[test]
fn every_variable_of_the_environment_that_is_named_is_read() {
    let mut files = vec![root().join("tests/run"), root().join(".ci/run")];
    for folder in ["src", "tests", "benches", "deploy"] {
        collect(&root().join(folder), "rs", &mut files);
        collect(&root().join(folder), "py", &mut files);
        collect(&root().join(folder), "sh", &mut files);
        collect(&root().join(folder), "service", &mut files);
    }
    files.retain(|file| !file.starts_with(root().join("tests/it/manual")));
    let sources: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
    let mut seen = 0;
    for document in documents() {
        for word in document.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("TIDEGATE_")) {
            seen += 1;
            // As a program or a script reads it.
            let read = [format!("\"{word}\""), format!("${word}"), format!("${{{word}")];
            assert!(read.iter().any(|read| sources.contains(read)), "{}: nobody reads {word}", document.name);
        }
    }
    assert!(seen > 5, "variables were found: {seen}");
}
