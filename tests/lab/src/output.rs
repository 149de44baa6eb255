//! What the lab's command line shows.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a command line is for")]

/// One line of an answer.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// One line about what goes on or went wrong.
pub(crate) fn note(text: &str) {
    eprintln!("lab: {text}");
}

/// A table with aligned columns.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..head.len())
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain(head.get(at).map(|cell| cell.len())).max().unwrap_or(0)
        })
        .collect();
    let show = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    show(&head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| show(row));
}
