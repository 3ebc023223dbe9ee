//! The documents for operators, read as text: fenced blocks, words in backticks, links, headings.
//!
//! Only what Markdown means by three backticks at the beginning of a line is a block; code that is indented by four spaces is text.

use std::fs;
use std::path::{Path, PathBuf};

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A document.
pub struct Document {
    /// From the project's folder on.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// A fenced block.
pub struct Block {
    /// `FILE:LINE`.
    pub at: String,
    /// What stands behind the three backticks.
    pub language: String,
    /// Without the fences.
    pub text: String,
}

/// Each `README.md` and each page in `conf/` and `deploy/`.
pub fn documents() -> Vec<Document> {
    let mut files = vec![root().join("README.md")];
    for folder in ["benches", "conf", "deploy"] {
        collect(&root().join(folder), "md", &mut files);
    }
    let read = |file: PathBuf| {
        let name = file.strip_prefix(root()).expect("it is ours").display().to_string();
        Document { name, text: fs::read_to_string(&file).expect("it was just listed") }
    };
    let documents: Vec<Document> = files.into_iter().map(read).collect();
    assert!(documents.len() >= 3, "documents were found: {}", documents.len());
    documents
}

/// Files with that ending below a folder, which may be missing.
pub fn collect(folder: &Path, ending: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, ending, files);
        } else if path.extension().is_some_and(|has| has == ending) {
            files.push(path);
        }
    }
}

impl Document {
    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        root().join(&self.name).parent().expect("a file has a folder").to_owned()
    }

    /// Its fenced blocks, and the text between them.
    pub fn parts(&self) -> (Vec<Block>, String) {
        let (mut blocks, mut prose): (Vec<Block>, String) = (Vec::new(), String::new());
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let at = format!("{}:{}", self.name, number + 1);
                    open = Some(Block { at, language: language.trim().to_owned(), text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => prose += &format!("{line}\n"),
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.name);
        (blocks, prose)
    }

    /// Blocks in that language.
    pub fn blocks(&self, language: &str) -> Vec<Block> {
        self.parts().0.into_iter().filter(|block| block.language == language).collect()
    }

    /// What stands in backticks in the text, line breaks as spaces.
    pub fn words(&self) -> Vec<String> {
        let prose = self.parts().1.replace("\\|", "|");
        let odd = prose.split('`').enumerate().filter(|(at, _)| at % 2 == 1);
        odd.map(|(_, word)| word.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// Where its links lead.
    pub fn links(&self) -> Vec<String> {
        let prose = self.parts().1;
        prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
    }

    /// Its headings as the anchors that a link names.
    pub fn anchors(&self) -> Vec<String> {
        let prose = self.parts().1;
        let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim().to_lowercase());
        headings
            .map(|heading| heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-"))
            .collect()
    }
}
