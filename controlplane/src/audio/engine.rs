//! The program that speaks texts: espeak-ng, or what the operator names.
//!
//! A text is the customer's: it reaches the program as a file or on its standard input, never as an argument and
//! never through a shell. The program runs in a folder of its own with an empty environment, for so long and no
//! longer, with a bound on what it writes; when its time is over its whole process group is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::File,
    io,
    path::Path,
    process::Stdio,
    time::Duration,
};

use controlplane_core::request::{Language, MessageText};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::timeout,
};

use crate::settings::SpeechSettings;

/// What speaks where nothing else is set.
const ESPEAK: &str = "espeak-ng";
/// Placeholders of a command.
const TEXT_FILE: &str = "{text_file}";
const LANGUAGE: &str = "{language}";
const OUTPUT_FILE: &str = "{output_file}";
/// Most bytes of a sound: three minutes of 48 kHz in 16 bits, and some.
const OUTPUT_MAX: u64 = 32 * 1024 * 1024;
/// Most bytes of any file of the program: espeak-ng lets PulseAudio's library make one of 64 MiB in memory
/// (measured with 1.51), though it plays nothing.
const FILE_MAX: u64 = 4 * OUTPUT_MAX;
/// As much of the program's own words as goes into the log, in bytes.
const WORDS_MAX: u64 = 300;
/// How long espeak-ng may take to list its voices.
const VOICES_MAX: Duration = Duration::from_secs(5);

/// Why a text was not spoken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("no files for the speech engine: {0}")]
    Files(#[from] io::Error),
    #[error("the speech engine {0} cannot be started: {1}")]
    Start(String, io::Error),
    #[error("the speech engine took longer than {0} ms and was killed")]
    Late(u128),
    #[error("the speech engine ended with {0}: {1}")]
    Failed(String, String),
}

/// A program, and the languages that it speaks.
#[derive(Debug)]
pub(crate) struct Engine {
    command: Vec<String>,
    /// What the program is told for each language.
    voices: BTreeMap<Language, String>,
    timeout: Duration,
    /// Of everything that makes the same text sound otherwise.
    id: [u8; 32],
}

impl Engine {
    /// The engine that is set; asks espeak-ng for its voices where that is it.
    ///
    /// # Errors
    /// It cannot be asked: it is not installed.
    pub(crate) async fn find(settings: &SpeechSettings) -> Result<Self, EngineError> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        if !settings.command.is_empty() {
            let voices = settings.languages.iter().map(|l| (l.clone(), l.as_str().to_owned())).collect();
            return Ok(Self::of(settings.command.clone(), voices, timeout, ""));
        }
        let voices = ask(&["--voices"]).await?;
        let version = ask(&["--version"]).await?;
        // `-b 1`: UTF-8. Without `-m` nothing in the text is a command.
        let command = [ESPEAK, "-v", LANGUAGE, "-b", "1", "-f", TEXT_FILE, "-w", OUTPUT_FILE];
        Ok(Self::of(command.map(str::to_owned).to_vec(), espeak_voices(&voices), timeout, &version))
    }

    fn of(
        command: Vec<String>,
        voices: BTreeMap<Language, String>,
        timeout: Duration,
        version: &str,
    ) -> Self {
        let mut id = Sha256::new();
        for part in command.iter().map(String::as_str).chain([version]) {
            id.update((part.len() as u64).to_be_bytes());
            id.update(part);
        }
        Self { command, voices, timeout, id: id.finalize().into() }
    }

    /// Whether it speaks `language`: itself, or the language that it is a form of.
    pub(crate) fn voice(&self, language: &Language) -> Option<&str> {
        let main = language.as_str().split('-').next().unwrap_or_default();
        let exact = self.voices.get(language).or_else(|| self.voices.get(&main.parse().ok()?));
        // `fr` where there are fr-fr and fr-be.
        let form = || self.voices.iter().find(|(tag, _)| tag.as_str().split('-').next() == Some(main));
        exact.or_else(|| form().map(|(_, voice)| voice)).map(String::as_str)
    }

    /// The languages that it names.
    pub(crate) fn languages(&self) -> impl Iterator<Item = &Language> {
        self.voices.keys()
    }

    /// What a text in this language is kept under once it is spoken.
    pub(crate) fn key(&self, voice: &str, text: &MessageText) -> [u8; 32] {
        let mut key = Sha256::new();
        key.update(self.id);
        key.update((voice.len() as u64).to_be_bytes());
        key.update(voice);
        key.update(text.as_str());
        key.finalize().into()
    }

    /// Speaks; the program's file as it wrote it.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) async fn speak(&self, voice: &str, text: &MessageText) -> Result<Vec<u8>, EngineError> {
        let folder = tempfile::Builder::new().prefix("ringward-speech-").tempdir()?;
        let (text_file, output_file) = (folder.path().join("text"), folder.path().join("speech"));
        std::fs::write(&text_file, text.as_str())?;
        let mut arguments = self.command.iter().map(|argument| {
            let argument = argument.replace(LANGUAGE, voice);
            let argument = argument.replace(TEXT_FILE, &text_file.to_string_lossy());
            OsString::from(argument.replace(OUTPUT_FILE, &output_file.to_string_lossy()))
        });
        let program = arguments.next().unwrap_or_default();
        let name = program.to_string_lossy().into_owned();
        let words = folder.path().join("words");
        let mut command = Command::new(program);
        command.args(arguments).stderr(File::create(&words)?).stdout(Stdio::null());
        let by_file = self.command.iter().any(|argument| argument.contains(TEXT_FILE));
        command.stdin(if by_file { Stdio::null() } else { File::open(&text_file)?.into() });
        quietly(&mut command, folder.path());
        let child = command.spawn().map_err(|error| EngineError::Start(name, error))?;
        let mut running = Running::of(child);
        let ended = timeout(self.timeout, running.end()).await;
        let status = ended.map_err(|_| EngineError::Late(self.timeout.as_millis()))??;
        let mut file = Vec::new();
        if status.success()
            && let Ok(output) = tokio::fs::File::open(&output_file).await
        {
            output.take(OUTPUT_MAX).read_to_end(&mut file).await?;
        }
        if !file.is_empty() {
            return Ok(file);
        }
        let mut said = Vec::new();
        tokio::fs::File::open(&words).await?.take(WORDS_MAX).read_to_end(&mut said).await?;
        let said = String::from_utf8_lossy(&said).escape_debug().to_string();
        Err(EngineError::Failed(status.to_string(), said))
    }
}

/// Nothing of this program's own reaches the child, which leads a process group.
fn quietly(command: &mut Command, folder: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    command.current_dir(folder).env_clear().env("PATH", path).env("LANG", "C.UTF-8").env("HOME", folder);
    command.process_group(0);
}

/// A child with its process group, which is killed unless the child has ended by itself.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn of(child: Child) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if group.is_some() {
            let limit = Rlimit { current: Some(FILE_MAX), maximum: Some(FILE_MAX) };
            // It may have ended already. Without a process this would bound ourselves.
            let _ = prlimit(group, Resource::Fsize, limit);
        }
        Self { child, group }
    }

    async fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // Not waited for yet, so the number is still its own.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn ask(arguments: &[&str]) -> Result<String, EngineError> {
    let mut command = Command::new(ESPEAK);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(VOICES_MAX, command.output()).await;
    let output = output.map_err(|_| EngineError::Late(VOICES_MAX.as_millis()))?;
    let output = output.map_err(|error| EngineError::Start(ESPEAK.to_owned(), error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// From lines such as ` 2  en-gb  --/M  English_(Great_Britain) gmw/en  (en 2)(en-uk 3)`. What a voice is listed for
/// counts more than what it is listed as well for.
fn espeak_voices(list: &str) -> BTreeMap<Language, String> {
    let mut voices = BTreeMap::new();
    // With how much each voice is meant for it: less is more.
    let mut others: BTreeMap<Language, (u32, String)> = BTreeMap::new();
    for line in list.lines().skip(1) {
        let Some(Ok(tag)) = line.split_whitespace().nth(1).map(str::parse::<Language>) else { continue };
        let voice = tag.as_str().to_owned();
        for other in line.split('(').skip(1).filter_map(|part| part.split_once(' ')) {
            let rank = other.1.split(')').next().and_then(|rank| rank.parse().ok());
            if let (Ok(tag), Some(rank)) = (other.0.parse::<Language>(), rank) {
                let best = others.entry(tag).or_insert_with(|| (rank, voice.clone()));
                if rank < best.0 {
                    *best = (rank, voice.clone());
                }
            }
        }
        voices.entry(tag).or_insert(voice);
    }
    for (tag, (_, voice)) in others {
        voices.entry(tag).or_insert(voice);
    }
    voices
}

/// What is wrong with a command, before anything is started with it.
pub(crate) fn check(settings: &SpeechSettings) -> Result<(), String> {
    let SpeechSettings { command, languages, .. } = settings;
    let Some(program) = command.first() else { return Ok(()) };
    let placeholders = |argument: &String| {
        let known = [TEXT_FILE, LANGUAGE, OUTPUT_FILE];
        known.iter().fold(argument.clone(), |left, name| left.replace(name, ""))
    };
    if program.contains('{') {
        return Err("its first element is the program, without placeholders".to_owned());
    }
    if !command.iter().any(|argument| argument.contains(OUTPUT_FILE)) {
        return Err(format!("one element must hold {OUTPUT_FILE}: where the program writes a WAV or MP3"));
    }
    if let Some(odd) = command.iter().find(|argument| placeholders(argument).contains(['{', '}'])) {
        return Err(format!("{odd}: the placeholders are {TEXT_FILE}, {LANGUAGE} and {OUTPUT_FILE}"));
    }
    if languages.iter().collect::<BTreeSet<_>>().is_empty() {
        return Err("audio.speech.languages must name the languages that this command speaks".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
