//! Commands in the documents are such as the program understands: parsed by its own definition of the command line.

use std::fs;

use clap::{CommandFactory, Parser};
use tidegate::cli::args::Cli;

use super::documents::{collect, documents, root};

/// Words of a shell line that stand before a command.
const BEFORE: [&str; 8] = ["if", "while", "until", "do", "then", "else", "exec", "!"];

/// The commands of a script, each as its words: quotes gone, comments and redirections too.
fn commands(script: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None);
    let mut letters = script.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\\') => {
                if let Some(escaped) = letters.next().filter(|c| *c != '\n') {
                    word.get_or_insert_default().push(escaped);
                }
            }
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => while letters.next_if(|c| *c != '\n').is_some() {},
            (None, '\n' | ';' | '|' | '&' | '(' | ')') => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    all.push(words);
    let redirects = |word: &String| word.trim_start_matches(char::is_numeric).starts_with(['<', '>']);
    let bare = |words: Vec<String>| -> Vec<String> {
        let is_before =
            |word: &String| BEFORE.contains(&word.as_str()) || word.split_once('=').is_some_and(|(name, _)| !name.starts_with('-'));
        words.into_iter().skip_while(is_before).take_while(|word| !redirects(word)).collect()
    };
    all.into_iter().map(bare).filter(|words| !words.is_empty()).collect()
}

/// Why a command of the project's own cannot work; `None` for others' commands.
fn wrong(words: &[String]) -> Option<String> {
    let name = |at: usize| words.get(at).map(String::as_str);
    let after = |mark: &str| words.iter().position(|word| word == mark).map(|at| &words[at + 1..]);
    match name(0)?.trim_start_matches("./") {
        "tidegate" | "target/release/tidegate" => Cli::try_parse_from(words).err().map(|error| error.to_string()),
        "cargo" if name(1) == Some("run") => {
            let own = [vec!["tidegate".to_owned()], after("--").unwrap_or_default().to_vec()].concat();
            Cli::try_parse_from(own).err().map(|error| error.to_string())
        }
        "cargo" if name(1) == Some("bench") => {
            let name = after("--bench")?.first()?;
            let Some(file) = bench(name) else { return Some(format!("no bench is called {name}")) };
            let source = fs::read_to_string(root().join(file)).expect("Cargo.toml names it");
            let mut words = after("--").unwrap_or_default().iter();
            words.find(|word| !source.contains(&format!("\"{word}\""))).map(|word| format!("the bench {name} knows no {word}"))
        }
        "cargo" if name(1) == Some("test") => {
            let filter = after("it").or_else(|| after("--lib"))?.first()?;
            unknown_tests(filter)
        }
        "tests/run" => words.get(1).filter(|word| !word.starts_with('-')).and_then(|filter| unknown_tests(filter)),
        file if file.starts_with("benches/") || file.starts_with("tests/") || file.starts_with("deploy/") => {
            (!root().join(file).exists()).then(|| format!("{file} does not exist"))
        }
        _ => None,
    }
}

/// The source of a bench, as Cargo.toml says it.
fn bench(name: &str) -> Option<String> {
    let cargo = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml is there");
    let sections = cargo.split("[[bench]]").skip(1).map(|rest| rest.split("\n[").next().unwrap_or_default());
    let of = |section: &str, key: &str| {
        section.lines().find_map(|line| line.strip_prefix(&format!("{key} = \""))?.split('"').next().map(str::to_owned))
    };
    let found = sections.into_iter().find(|section| of(section, "name").as_deref() == Some(name))?;
    Some(of(found, "path").unwrap_or_else(|| format!("benches/{name}.rs")))
}

/// Names of all modules, and of all functions that are tests.
fn modules_and_tests() -> (Vec<String>, Vec<String>) {
    let (mut files, mut modules, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    collect(&root().join("tests"), "rs", &mut files);
    collect(&root().join("src"), "rs", &mut files);
    for file in files {
        let mut is_test = false;
        for line in fs::read_to_string(&file).unwrap().lines().map(str::trim) {
            let name = |after: &str| after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
            let bare = line.split_once("pub ").filter(|(before, _)| before.is_empty()).map_or(line, |(_, rest)| rest);
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            if let Some(after) = bare.strip_prefix("mod ") {
                modules.push(name(after));
            } else if let Some(after) = bare.strip_prefix("fn ").or_else(|| bare.strip_prefix("async fn ")) {
                tests.extend(std::mem::take(&mut is_test).then(|| name(after)));
            }
        }
    }
    assert!(modules.len() > 50 && tests.len() > 200, "found: {} modules, {} tests", modules.len(), tests.len());
    (modules, tests)
}

/// A filter of tests names modules, and last a module or a part of a test's name.
fn unknown_tests(filter: &str) -> Option<String> {
    let (modules, tests) = modules_and_tests();
    let (path, last) = filter.rsplit_once("::").unwrap_or(("", filter));
    let mut path = path.split("::").filter(|part| !part.is_empty());
    let is_module = |part: &str| modules.iter().any(|module| module == part);
    let known = last.is_empty() || is_module(last) || tests.iter().any(|test| test.contains(last));
    path.find(|part| !is_module(part)).or((!known).then_some(last)).map(|part| format!("no test is called {part}"))
}

#[test]
fn every_command_in_the_documents_is_understood() {
    let mut seen = 0;
    for document in documents() {
        for block in document.parts().0 {
            let script = match block.language.as_str() {
                "sh" | "bash" => block.text.clone(),
                // Of a session, what was typed.
                "text" => block.text.lines().filter_map(|line| line.strip_prefix("$ ")).map(|line| format!("{line}\n")).collect(),
                _ => continue,
            };
            for words in commands(&script) {
                if let Some(wrong) = wrong(&words) {
                    panic!("{}: {}\n{wrong}", block.at, words.join(" "));
                }
                seen += usize::from(matches!(words[0].as_str(), "tidegate" | "cargo" | "tests/run"));
            }
        }
    }
    assert!(seen > 10, "commands were found: {seen}");
}

/// Commands that are only mentioned may leave out what they act on; their name and their options must be there.
fn mentioned_wrongly(text: &str) -> Option<String> {
    let cli = Cli::command();
    let all: Vec<Vec<String>> = commands(text);
    let words = all.first().filter(|words| words[0] == "tidegate")?;
    let mut found = &cli;
    let mut options = Vec::new();
    let mut rest = words[1..].iter();
    while let Some(word) = rest.next() {
        if let Some(option) = word.strip_prefix("--") {
            let takes_next = cli.get_arguments().any(|a| a.get_long() == Some(option) && a.get_action().takes_values());
            if takes_next {
                rest.next();
            }
            options.push(option.split('=').next().unwrap().to_owned());
        } else if std::ptr::eq(found, &cli) && word.starts_with(|c: char| c.is_ascii_lowercase()) {
            match cli.find_subcommand(word) {
                Some(command) => found = command,
                None => return Some(format!("there is no command {word}")),
            }
        }
    }
    let known = |name: &String| found.get_arguments().chain(cli.get_arguments()).any(|argument| argument.get_long() == Some(name));
    options
        .into_iter()
        .filter(|name| !["help", "version"].contains(&name.as_str()))
        .find(|name| !known(name))
        .map(|name| format!("it has no --{name}"))
}

#[test]
fn every_command_that_is_mentioned_exists() {
    let mut seen = 0;
    for document in documents() {
        for word in document.words().iter().filter(|word| word.starts_with("tidegate ")) {
            seen += 1;
            assert_eq!(mentioned_wrongly(word), None, "{}: `{word}`", document.name);
        }
    }
    let mut examples = Vec::new();
    collect(&root().join("conf"), "yaml", &mut examples);
    for file in examples {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let comment = line.split_once('#').map_or("", |(_, comment)| comment.trim());
            let quoted = comment.split('`').enumerate().filter(|(at, _)| at % 2 == 1).map(|(_, word)| word);
            // A command on a line of its own, or behind a number or what it stands for; its explanation is three spaces further on.
            let begins = |before: &str| before.is_empty() || before.ends_with("  ") || before.trim_end_matches(". ").parse::<u8>().is_ok();
            let whole = comment.find("tidegate ").filter(|at| line.starts_with("#  ") && begins(&comment[..*at]));
            let whole = whole.map(|at| comment[at..].split("   ").next().unwrap_or_default());
            for word in quoted.chain(whole).filter(|word| word.starts_with("tidegate ")) {
                seen += 1;
                assert_eq!(mentioned_wrongly(word), None, "{}:{}: {word}", file.display(), number + 1);
            }
        }
    }
    assert!(seen > 40, "commands were found: {seen}");
}

#[test]
fn wrong_commands_are_noticed() {
    let check = |line: &str, is_wrong: bool| {
        let found = commands(line).iter().any(|words| wrong(words).is_some());
        assert_eq!(found, is_wrong, "{line}: {:?}", commands(line));
    };
    check("tidegate promote shop v2 --wait   # comes back --sometime", false);
    check("tidegate promote shop v2 --await", true);
    check("for s in a1; do\n  tidegate drain shop/v1/$s --wait || exit\ndone", false);
    check("for s in a1; do\n  tidegate drian shop/v1/$s --wait || exit\ndone", true);
    check("TIDEGATE_TOKEN=x tidegate status > file", false);
    check("tidegate --admin http://a:1,http://b:1 \\\n  status --jsno", true);
    check("cargo run --release -- demo --keep", false);
    check("cargo run --release -- deno", true);
    check("cargo bench --bench ledger", false);
    check("cargo bench --bench legder", true);
    check("cargo bench --bench ledger -- work", false);
    check("cargo bench --bench ledger -- wrok", true);
    check("cargo bench --bench compare", true); // a folder of benches/, and no bench
    check("tests/run a_user_keeps_the_pin_of_the_other", true);
    check("tests/run unknown_tests", true); // a function, and no test
    check("tests/run drain_ends", false);
    check("cargo test --test it reload::load", false);
    check("cargo test --test it reload::laod", true);
    check("cargo test --test it relaod::", true);
    check("TIDEGATE_LONG=1 cargo test --test it upgrade:: -- --nocapture", false);
    let check = |line: &str, is_wrong: bool| assert_eq!(mentioned_wrongly(line).is_some(), is_wrong, "{line}");
    check("tidegate evict", false);
    check("tidegate evcit", true);
    check("tidegate wait d7", false);
    check("tidegate run --force", false);
    check("tidegate run --wait", true);
}
