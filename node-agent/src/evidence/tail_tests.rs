//! Real files and real rotations, as logrotate does them.

use std::{fs, io::Write as _, path::PathBuf};

use super::*;
use crate::evidence::lines::HELD_BYTES_MAX;

struct Log {
    _folder: tempfile::TempDir,
    path: PathBuf,
    writer: Option<File>,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.log");
        Self { _folder: folder, path, writer: None }
    }

    /// As a logger does: what it has open it goes on writing.
    fn write(&mut self, text: &str) {
        let open = || OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        self.writer.get_or_insert_with(open).write_all(text.as_bytes()).unwrap();
    }

    /// Renames it, as logrotate does with `create`, and tells the logger or not.
    fn rotate(&mut self, reopens: bool) -> PathBuf {
        let (one, two) = (self.path.with_extension("log.1"), self.path.with_extension("log.2"));
        if one.exists() {
            fs::rename(&one, two).unwrap();
        }
        fs::rename(&self.path, &one).unwrap();
        if reopens {
            self.writer = None;
        }
        one
    }

    /// As logrotate does with `copytruncate`.
    fn copy_and_truncate(&self) {
        fs::copy(&self.path, self.path.with_extension("log.1")).unwrap();
        OpenOptions::new().write(true).open(&self.path).unwrap().set_len(0).unwrap();
    }

    fn tail(&self, begin: &Begin) -> Tail {
        Tail::new(&self.path, begin).unwrap()
    }
}

fn read(tail: &mut Tail) -> (Vec<String>, Look) {
    let (mut lines, mut all) = (Vec::new(), Look::default());
    loop {
        let look = tail.look(&mut |line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap();
        all.overlong += look.overlong;
        all.half += look.half;
        all.skipped_bytes += look.skipped_bytes;
        all.rotated += look.rotated;
        all.truncated += look.truncated;
        if !look.more {
            return (lines, all);
        }
    }
}

fn lines(tail: &mut Tail) -> Vec<String> {
    read(tail).0
}

#[test]
fn old_lines_are_left_and_new_ones_read_as_they_become_whole() {
    let mut log = Log::new();
    log.write("old\nhalf of an old");
    let mut tail = log.tail(&Begin::End);
    log.write(" line\nnew\nha");
    assert_eq!(lines(&mut tail), ["new"]);
    assert!(lines(&mut tail).is_empty());
    log.write("lf\n");
    assert_eq!(lines(&mut tail), ["half"]);
}

#[test]
fn a_file_that_is_not_there_yet_is_read_whole() {
    let mut log = Log::new();
    let mut tail = log.tail(&Begin::End);
    assert!(lines(&mut tail).is_empty() && tail.place().unwrap().is_none());
    log.write("first\n");
    assert_eq!(lines(&mut tail), ["first"]);
    fs::remove_file(&log.path).unwrap();
    assert!(lines(&mut tail).is_empty());
    log.write("still written to the removed one\n");
    assert_eq!(lines(&mut tail), ["still written to the removed one"]);
    log.writer = None;
    log.write("second\n");
    assert_eq!(lines(&mut tail), ["second"]);
}

#[test]
fn a_rotated_file_is_read_to_its_end_and_still_while_its_writer_has_it_open() {
    let mut log = Log::new();
    log.write("a\n");
    let mut tail = log.tail(&Begin::Start);
    assert_eq!(lines(&mut tail), ["a"]);
    log.write("unread before it was renamed\n");
    log.rotate(false);
    log.write("written to the renamed one\n");
    fs::write(&log.path, "in the new one\n").unwrap();
    assert_eq!(
        lines(&mut tail),
        ["unread before it was renamed", "written to the renamed one", "in the new one"]
    );
    log.write("late\n");
    assert_eq!(lines(&mut tail), ["late"]);
    log.write("without an end");
    let looks: Vec<_> = (0..=SILENT_LOOKS).map(|_| read(&mut tail).1).collect();
    assert_eq!(looks.iter().map(|look| look.half).sum::<u64>(), 1);
    assert!(tail.before.is_none());
    log.write(" and after the end\n");
    assert!(lines(&mut tail).is_empty());
}

#[test]
fn a_flood_of_rotations_loses_nothing_that_was_there_at_a_look() {
    let mut log = Log::new();
    let (mut tail, mut found, mut rotated) = (log.tail(&Begin::Start), Vec::new(), 0);
    for n in 0..40 {
        log.write(&format!("line {n}\n"));
        let (lines, look) = read(&mut tail);
        found.extend(lines);
        rotated += look.rotated;
        log.rotate(true);
    }
    let expected: Vec<_> = (0..40).map(|n| format!("line {n}")).collect();
    assert_eq!((found, rotated), (expected, 39));
}

#[test]
fn a_truncated_file_is_read_from_its_beginning_even_if_it_has_grown_past_the_place() {
    let mut log = Log::new();
    log.write("one\ntwo\n");
    let mut tail = log.tail(&Begin::Start);
    assert_eq!(lines(&mut tail).len(), 2);
    log.copy_and_truncate();
    log.write("a\n");
    let (found, look) = read(&mut tail);
    assert_eq!((found.as_slice(), look.truncated), (&["a".to_owned()][..], 1));
    log.copy_and_truncate();
    log.write("much longer than what was read before\nb\n");
    let (found, look) = read(&mut tail);
    assert_eq!((found.len(), look.truncated), (2, 1));
    assert_eq!(look.rotated, 0);
}

#[test]
fn after_a_restart_it_goes_on_where_it_was_even_in_a_file_that_was_renamed_meanwhile() {
    let mut log = Log::new();
    log.write("one\nha");
    let place = |tail: &mut Tail| {
        lines(tail);
        // Over the disk and back.
        let text = serde_json::to_string(&tail.place().unwrap().unwrap()).unwrap();
        Begin::At(serde_json::from_str(&text).unwrap())
    };
    let at = place(&mut log.tail(&Begin::Start));
    log.write("lf\ntwo\n");
    let mut tail = log.tail(&at);
    assert_eq!(lines(&mut tail), ["half", "two"]);
    let at = place(&mut tail);
    log.write("three\n");
    log.rotate(true);
    log.write("four\n");
    assert_eq!(lines(&mut log.tail(&at)), ["three", "four"]);
    // Emptied and filled again meanwhile: what is there may be older than the place.
    let at = place(&mut log.tail(&Begin::Start));
    log.copy_and_truncate();
    log.write("another that is longer than the first\n");
    let mut tail = log.tail(&at);
    assert!(lines(&mut tail).is_empty());
    log.write("five\n");
    assert_eq!(lines(&mut tail), ["five"]);
}

#[test]
fn in_the_middle_of_a_line_a_restart_takes_its_rest_for_no_line() {
    let mut log = Log::new();
    let long = "x".repeat(2 * HELD_BYTES_MAX);
    log.write(&long);
    let mut tail = log.tail(&Begin::Start);
    lines(&mut tail);
    let at = Begin::At(tail.place().unwrap().unwrap());
    log.write("forged\nnext\n");
    let (found, look) = read(&mut log.tail(&at));
    assert_eq!((found.as_slice(), look.overlong), (&["next".to_owned()][..], 1));
}

#[test]
fn a_reader_far_behind_skips_and_says_how_much() {
    let mut log = Log::new();
    log.write("one\n");
    let mut tail = log.tail(&Begin::Start);
    lines(&mut tail);
    // A hole costs no disk.
    log.writer.as_ref().unwrap().set_len(LAG_BYTES_MAX + 2 * NEAR_END_BYTES).unwrap();
    log.write("\nlast\n");
    let (found, look) = read(&mut tail);
    assert_eq!(
        (found.as_slice(), look.skipped_bytes),
        (&["last".to_owned()][..], LAG_BYTES_MAX + NEAR_END_BYTES + 2)
    );
}

#[test]
fn what_is_no_regular_file_is_never_waited_for() {
    let log = Log::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, &log.path, rustix::fs::Mode::RUSR).unwrap();
    assert!(Tail::new(&log.path, &Begin::End).is_err());
    fs::remove_file(&log.path).unwrap();
    fs::create_dir(&log.path).unwrap();
    assert!(Tail::new(&log.path, &Begin::End).is_err());
}
