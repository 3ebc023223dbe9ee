//! Files that are no configuration: bombs, other encodings, other people's files. Each is refused in a moment and without a panic.
//!
//! The times are for an unoptimised build on a busy machine; a bomb that works would need hours, not seconds.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::tests::GOOD;
use super::*;

#[test]
fn a_flood_of_problems_is_counted_not_shown() {
    let text = format!("{GOOD}{}", (0..5000).map(|n| format!("x{n}: 1\n")).collect::<String>());
    let problems = parse(&text, "f").unwrap_err().0;
    assert_eq!((problems.len(), problems[500].what.as_str()), (501, "4500 more problems are not shown"));
}

#[test]
fn bombs_are_refused_fast() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for n in 1..12 {
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")));
    }
    let many = |part: &str, n: usize| part.repeat(n);
    let bombs = [
        laughs,
        many("[", 100_000),
        many("{a: ", 100_000),
        many("- ", 100_000),
        many("? ", 100_000),
        many("[{", 500_000),
        many("- - - -\n", 100_000),
        (0..700).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        many("x", 100 << 20),
        many("x", 1 << 20),
        format!("a: \"{}", many("\\n", 500_000)),
        format!("a: |\n{}", many("  x\n", 200_000)),
        many("x\n", 500_000),
        many("&a ", 300_000),
        many("!t ", 300_000),
        many("%TAG ! x\n", 100_000),
        many("a: 1\n", 200_000),
        format!("[{}]", many("a,", 500_000)),
        format!("{{{}}}", (0..100_000).map(|n| format!("k{n}: 1,")).collect::<String>()),
        format!("apps: {{{}}}", (0..50_000).map(|n| format!("k{n}: {{}},")).collect::<String>()),
        many("\0", 1000),
        many("#\n", 500_000),
        many("'", 1_000_000),
        many("\t", 1_000_000),
        many("a: b: ", 100_000),
        format!("? {}", many("x ", 400_000)),
    ];
    for (n, bomb) in bombs.iter().enumerate() {
        let start = Instant::now();
        let problems = parse(bomb, "bomb").unwrap_err();
        assert!(!problems.0.is_empty() && problems.to_string().len() < 1 << 20, "bomb {n}");
        // Unoptimised and on a busy machine: what matters is that nothing grows faster than the file.
        assert!(start.elapsed() < Duration::from_secs(120), "bomb {n} took {:?}", start.elapsed());
    }
}

#[test]
fn a_file_is_read_within_bounds_and_its_encoding_is_checked() {
    let folder = std::env::temp_dir().join(format!("tidegate-config-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let check = |bytes: &[u8], expected: &str| {
        let file = folder.join("f.yaml");
        fs::write(&file, bytes).unwrap();
        let got = load(&file).unwrap_err().to_string();
        assert!(got.starts_with(&format!("{}:{expected}", file.display())), "{got}");
    };
    check(&[b"a: b\nc: ".as_slice(), &[0xff, 0xfe]].concat(), "2: a byte in this line is not UTF-8; save the file as UTF-8");
    check(&vec![b'x'; 100 << 20], "1: the file is larger than 1 MiB");
    check(b"", "1: the file is empty");
    let missing = load(&folder.join("no.yaml")).unwrap_err().to_string();
    assert!(missing.contains("the file cannot be read: No such file"), "{missing}");
    assert!(load(&folder).is_err());
    assert!(load(Path::new("/dev/zero")).unwrap_err().to_string().contains("larger than 1 MiB"));
    let good = folder.join("good.yaml");
    fs::write(&good, GOOD).unwrap();
    assert_eq!(load(&good), parse(GOOD, "f"));
    fs::write(
        &good,
        GOOD.replace("0.0.0.0:8080", &format!("0.0.0.0:8080\n    tls: {{certificates: [{{certificate: {}}}]}}", folder.display())),
    )
    .unwrap();
    assert!(load(&good).unwrap_err().to_string().contains("is not a regular file"));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn named_files_must_be_readable_and_keys_long_enough() {
    let text = GOOD
        .replace("0.0.0.0:8080", "0.0.0.0:8080\n    tls: {certificates: [{certificate: /no.pem, key: /yes.key}]}")
        .replace("idle_timeout: 30m", "keys: [{id: k1, file: /short}, {id: k2, file: /yes.key}]");
    let files = |path: &Path| match path.to_str() {
        Some("/yes.key") => Ok(32),
        Some("/short") => Ok(31),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let problems: Vec<String> = parse_with(&text, "f", &files).unwrap_err().0.iter().map(Problem::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("f:3: listeners[0].tls.certificates[0].certificate: the file `/no.pem` cannot be read: entity not found")
    );
    assert!(problems[1].starts_with("f:9: apps.shop.session.keys[0].file: the key `/short` has 31 bytes, at least 32 are needed"));
    assert!(parse(&text, "f").is_ok(), "parse must not touch the disk");
}
