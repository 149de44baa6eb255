//! The recordings, for tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;

/// File name and bytes of every recording in `kind` (`clean` or `hostile`), sorted.
pub(crate) fn of(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "ami"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings in {}", folder.display());
    files
}

/// All of them.
pub(crate) fn all() -> Vec<(String, Vec<u8>)> {
    [of("clean"), of("hostile")].concat()
}
