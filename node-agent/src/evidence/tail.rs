//! One log file, followed through rotations.
//!
//! ```text
//!   missing ──appears──▶ read from its beginning
//!   first start ───────▶ read from its end: what was before is nobody's evidence of now
//!   restart ───────────▶ read on where it was, if that place is still there and was left not long ago
//!   renamed, new file ─▶ the old one is read to its end, and still while its writer has it open; the new one from its beginning
//!   shorter than read, or other bytes before the place where it was: truncated (copytruncate) ─▶ from its beginning
//!   behind by more than [`LAG_BYTES_MAX`] ─▶ from near its end, counted
//! ```
//!
//! Only whole lines count. What a copy and truncation lose between the two is lost to every reader.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::lines::Lines;

/// A reader this far behind skips: an attack of now matters more than one of an hour ago.
pub(crate) const LAG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What is read at least after a skip.
const NEAR_END_BYTES: u64 = 1024 * 1024;
/// A place is known again by so many bytes before it.
const TRAIL_BYTES: usize = 64;
/// A renamed file is read on until it was silent for so many looks: writers reopen their logs late.
const SILENT_LOOKS: u32 = 100;

/// Where a file was read up to, for the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    device: u64,
    inode: u64,
    /// The beginning of the first line that was not whole.
    offset: u64,
    /// Of the bytes before it.
    trail: u64,
}

/// What one look found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// There may be more: look again at once.
    pub(crate) more: bool,
    /// Lines that were too long.
    pub(crate) overlong: u64,
    /// Ends of files without a line end.
    pub(crate) half: u64,
    /// Bytes that were skipped.
    pub(crate) skipped_bytes: u64,
    /// Times that another file had taken the name.
    pub(crate) rotated: u64,
    /// Times that the file had been emptied.
    pub(crate) truncated: u64,
}

/// An open file and how far it was read.
#[derive(Debug)]
struct Opened {
    file: File,
    device: u64,
    inode: u64,
    /// The next byte to read.
    next: u64,
    /// The last bytes before `next`.
    trail: Vec<u8>,
    lines: Lines,
}

/// A file that is followed.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    now: Option<Opened>,
    /// Renamed, and how many more silent looks it is read.
    before: Option<(Opened, u32)>,
}

/// Where to begin.
#[derive(Debug, Clone)]
pub(crate) enum Begin {
    /// At the end of what is there; a file that appears later is read whole.
    End,
    /// Here, if it can be found again; else at the end.
    At(Place),
    /// At the beginning.
    Start,
}

impl Tail {
    /// Begins to follow.
    pub(crate) fn new(path: &Path, begin: &Begin) -> io::Result<Self> {
        let mut tail = Self { path: path.to_owned(), now: None, before: None };
        let Some(file) = open(path)? else { return Ok(tail) };
        let place = match begin {
            Begin::Start => {
                tail.now = Some(Opened::at(file, 0)?);
                return Ok(tail);
            }
            Begin::End => None,
            Begin::At(place) => Some(place),
        };
        match place {
            Some(place) if place.is_in(&file)? => tail.now = Some(Opened::at(file, place.offset)?),
            Some(place) => match rotated(path, place)? {
                Some(old) => {
                    tail.before = Some((Opened::at(old, place.offset)?, SILENT_LOOKS));
                    tail.now = Some(Opened::at(file, 0)?);
                }
                None => tail.now = Some(Opened::at_end(file)?),
            },
            None => tail.now = Some(Opened::at_end(file)?),
        }
        Ok(tail)
    }

    /// Whether there is a file.
    pub(crate) fn is_open(&self) -> bool {
        self.now.is_some()
    }

    /// Where to go on after a restart. `None`: there is no file.
    pub(crate) fn place(&self) -> io::Result<Option<Place>> {
        let unread = self.before.as_ref().map(|(opened, _)| opened).filter(|opened| opened.half() > 0);
        unread.or(self.now.as_ref()).map(Opened::place).transpose()
    }

    /// Hands every new line over, as many as are held at a time.
    pub(crate) fn look(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<Look> {
        let mut look = Look::default();
        self.follow(&mut look)?;
        if let Some((opened, silent)) = &mut self.before {
            if opened.read(take, &mut look)? > 0 {
                *silent = SILENT_LOOKS;
                look.more = true;
                return Ok(look);
            }
            *silent = silent.saturating_sub(1);
            if *silent == 0 {
                look.half += u64::from(opened.half() > 0);
                self.before = None;
            }
        }
        if let Some(opened) = &mut self.now {
            opened.check(&mut look)?;
            look.more = opened.read(take, &mut look)? > 0;
        }
        Ok(look)
    }

    /// Whether the name is another file's now.
    fn follow(&mut self, look: &mut Look) -> io::Result<()> {
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            // Renamed and not yet made anew, or removed: what is open is read on.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.now.as_ref().is_some_and(|opened| opened.is(&metadata)) {
            return Ok(());
        }
        let Some(file) = open(&self.path)? else { return Ok(()) };
        let opened = Opened::at(file, 0)?;
        if let Some(old) = self.now.replace(opened) {
            look.rotated += 1;
            // Rotated twice in so short a time: the older one's rest is given up.
            if let Some((older, _)) = self.before.replace((old, SILENT_LOOKS)) {
                look.half += u64::from(older.half() > 0);
            }
        }
        Ok(())
    }
}

/// `None`: there is none. Never waits for the other end of a pipe.
fn open(path: &Path) -> io::Result<Option<File>> {
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(no_wait).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::other("is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file with that place among those beside `path` whose names begin with its own.
fn rotated(path: &Path, place: &Place) -> io::Result<Option<File>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let begins = entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes());
        if !begins || entry.metadata().is_ok_and(|metadata| metadata.ino() != place.inode) {
            continue;
        }
        if let Ok(Some(file)) = open(&entry.path())
            && place.is_in(&file)?
        {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

impl Place {
    fn is_in(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        Ok((metadata.dev(), metadata.ino()) == (self.device, self.inode)
            && metadata.len() >= self.offset
            && hash(&trail(file, self.offset)?) == self.trail)
    }
}

/// The bytes before an offset.
fn trail(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(offset).unwrap_or(usize::MAX).min(TRAIL_BYTES);
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, offset - length as u64) {
        Ok(()) => Ok(bytes),
        // Truncated meanwhile.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// FNV-1a: the same in every version of this program.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

impl Opened {
    fn at_end(file: File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Self::at(file, end)
    }

    /// In the middle of a line, the rest of it is no line.
    fn at(file: File, offset: u64) -> io::Result<Self> {
        let (metadata, trail) = (file.metadata()?, trail(&file, offset)?);
        let is_rest = trail.last().is_some_and(|byte| *byte != b'\n');
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { file, device, inode, next: offset, trail, lines: Lines::new(is_rest) })
    }

    fn is(&self, metadata: &Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }

    fn half(&self) -> u64 {
        self.lines.half()
    }

    fn place(&self) -> io::Result<Place> {
        let offset = self.next - self.half();
        let trail = hash(&trail(&self.file, offset)?);
        Ok(Place { device: self.device, inode: self.inode, offset, trail })
    }

    /// Whether it was emptied, or grows faster than it is read.
    fn check(&mut self, look: &mut Look) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length < self.next || (length > self.next && trail(&self.file, self.next)? != self.trail) {
            look.truncated += 1;
            look.half += u64::from(self.half() > 0);
            *self = Self::at(self.file.try_clone()?, 0)?;
        }
        let behind = length.saturating_sub(self.next);
        if behind > LAG_BYTES_MAX {
            let offset = length - NEAR_END_BYTES;
            look.skipped_bytes += offset - self.next;
            *self = Self::at(self.file.try_clone()?, offset)?;
        }
        Ok(())
    }

    fn read(&mut self, take: &mut impl FnMut(&[u8]), look: &mut Look) -> io::Result<u64> {
        let read = self.lines.fill(&mut At { file: &self.file, offset: self.next })? as u64;
        if read > 0 {
            self.next += read;
            self.trail = trail(&self.file, self.next)?;
        }
        while let Some(line) = self.lines.next() {
            take(line);
        }
        look.overlong += self.lines.take_overlong();
        Ok(read)
    }
}

/// Reads at a place, wherever the file's own cursor is.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, self.offset)
    }
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tail_tests;
