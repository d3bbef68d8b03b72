//! Every command that the documents and the help texts name is one, with the arguments that they give it.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::{read, tree};

/// Documents for users, from the repository's top.
const DOCUMENTS: [&str; 4] = ["README.md", "docs", "deploy/compose/README.md", "deploy/kubernetes/README.md"];
/// Words that stand for a number of the reader's own.
const NUMBERS: [&str; 5] = ["ID", "N", "P", "OFFSET", "LEVEL"];

fn documents() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = |path: PathBuf| {
        let inner = std::fs::read_dir(&path).map(|all| all.flatten().map(|entry| entry.path()).collect());
        inner.unwrap_or_else(|_| vec![path])
    };
    DOCUMENTS.iter().flat_map(|name| files(top.join(name))).collect()
}

/// What stands between backticks, and lines that are indented as code.
fn code(markdown: &str) -> Vec<String> {
    let mut all: Vec<String> = markdown
        .lines()
        .filter(|line| line.starts_with("    "))
        // Behind some spaces stands what it does.
        .map(|line| line.trim().split("   ").next().unwrap_or_default().to_owned())
        .map(|line| line.split(" #").next().unwrap_or_default().to_owned())
        .collect();
    for paragraph in markdown.split("\n\n") {
        all.extend(paragraph.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")));
    }
    all
}

/// Words as a shell makes them; quotes hold words together.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in command.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(character),
        }
    }
    let fill = |word: String| if NUMBERS.contains(&word.as_str()) { "1".to_owned() } else { word };
    words.into_iter().filter(|word| !word.is_empty()).map(fill).collect()
}

/// The commands of ours in a line, without their first word.
fn commands(line: &str) -> Vec<Vec<String>> {
    let parts = line.split("&&").flat_map(|part| part.split('|')).flat_map(|part| part.split(';'));
    let ours = |part: &str| {
        let inside = part.split_once("-- /ottla ").map(|(_, rest)| rest);
        let part = inside.or_else(|| part.trim().strip_prefix("ottla "))?;
        let part = part.split(" > ").next()?.split(" < ").next()?;
        Some(words(part))
    };
    parts.filter_map(ours).collect()
}

/// Why a command cannot be one. What is left out in an abbreviated one may be missing.
fn wrong(words: &[String]) -> Option<String> {
    // "…" stands for more, "…:" and the like for prose about a name.
    let words: Vec<_> = words.iter().take_while(|word| *word != "…" && *word != "...").collect();
    let error = read(std::iter::once("ottla").chain(words.iter().map(|word| word.as_str()))).err()?;
    let is_short = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    (!is_short).then(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[test]
fn documents_name_commands_that_there_are() {
    let mut checked = 0;
    let mut faults = Vec::new();
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for command in code(&text).iter().flat_map(|line| commands(line)) {
            checked += 1;
            faults.extend(wrong(&command).map(|why| format!("{}: {command:?}: {why}", path.display())));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert!(checked > 80, "only {checked} commands found");
}

#[test]
fn examples_in_help_texts_are_commands() {
    fn walk(command: &clap::Command, faults: &mut Vec<String>) {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for words in text.lines().flat_map(|line| commands(line.split("   ").next().unwrap_or_default())) {
            faults.extend(wrong(&words).map(|why| format!("{words:?}: {why}")));
        }
        command.get_subcommands().for_each(|inner| walk(inner, faults));
    }
    let mut faults = Vec::new();
    walk(&tree(), &mut faults);
    assert_eq!(faults, Vec::<String>::new());
}
