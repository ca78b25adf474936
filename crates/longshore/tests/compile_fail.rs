//! The mistakes people make do not compile, and the compiler says what to do about them in our words.
//!
//! Every file in `compile_fail/` is a mistake; its `//! says:` lines must appear in what the compiler
//! tells. Nothing else is compared: the rest of the text is the compiler's and changes with it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A package of its own, made of all mistakes at once, so that dependencies are checked once.
fn package(home: &Path, cases: &[PathBuf]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dir, src) = (root.display(), home.join("src/bin"));
    let _ = fs::remove_dir_all(&src);
    fs::create_dir_all(&src).unwrap();
    for case in cases {
        fs::copy(case, src.join(case.file_name().unwrap())).unwrap();
    }
    let manifest = format!(
        "[package]\nname = \"mistakes\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nlongshore = {{ path = {dir:?} }}\nserde = {{ version = \"1\", features = [\"derive\"] }}\n\
         tower-layer = \"0.3\"\ntower-service = \"0.3\"\n\n[workspace]\n",
        dir = dir.to_string()
    );
    fs::write(home.join("Cargo.toml"), manifest).unwrap();
    // The versions of the workspace: nothing has to be fetched.
    fs::copy(root.join("../../Cargo.lock"), home.join("Cargo.lock")).unwrap();
}

/// What the compiler says of each case.
fn told(home: &Path, offline: bool) -> BTreeMap<String, String> {
    let checked = Command::new(env!("CARGO"))
        .args([
            "check",
            "--keep-going",
            "--bins",
            "--quiet",
            "--message-format=json",
        ])
        .args(offline.then_some("--offline"))
        .current_dir(home)
        .env("CARGO_TARGET_DIR", home.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let mut told = BTreeMap::<String, String>::new();
    for line in String::from_utf8(checked.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(text) = message["message"]["rendered"].as_str() {
            let case = message["target"]["name"].as_str().unwrap().to_owned();
            *told.entry(case).or_default() += text;
        }
    }
    if told.is_empty() {
        let stderr = String::from_utf8_lossy(&checked.stderr);
        // Cargo may not have fetched what the workspace's lock file names beside our dependencies.
        assert!(offline, "nothing was compiled: {stderr}");
        return self::told(home, false);
    }
    told
}

#[test]
fn every_mistake_is_told_in_our_words() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let entries = fs::read_dir(folder).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 8);
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mistakes");
    package(&home, &cases);
    let told = told(&home, true);
    let mut silent = Vec::new();
    for case in cases {
        let name = case.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = told.get(&name).map_or("it compiles", String::as_str);
        let source = fs::read_to_string(&case).unwrap();
        let says: Vec<&str> = source
            .lines()
            .filter_map(|l| l.strip_prefix("//! says: "))
            .collect();
        assert!(!says.is_empty(), "{name} expects nothing");
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for says in says {
            if !one_line.contains(says) {
                silent.push(format!("{name} does not say \"{says}\":\n{text}"));
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}
