//! `nft`, run as a child: arguments as a vector, a script on its standard input, bounded time and output.
//!
//! One child is started ahead: it has loaded its libraries and waits for its script, so that a ban waits for neither. On a
//! busy machine that is most of what a run takes (`docs/PERFORMANCE.md`). When this program ends, however it does, that child
//! reads an empty script and ends too.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

/// One run of nft: 100,000 bans take 0.6 s, ten times that on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(20);
/// What nft may answer: 200,000 bans as JSON are some 25 MB.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What is kept of its complaints. It repeats the script's lines in them.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Why nft did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// It cannot be started, or its pipes broke.
    #[error("{program} cannot be run: {problem}")]
    Run {
        /// The program.
        program: String,
        /// The system's words.
        problem: String,
    },
    /// It took too long and was ended.
    #[error("nft took more than {} s", RUN_MAX.as_secs())]
    Late,
    /// It answers more than anybody reads.
    #[error("nft answers more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// The kernel or nft refused it; nothing of it was done.
    #[error("nft refused: {0}")]
    Refused(String),
    /// It answers what is not understood.
    #[error("nft's answer: {0}")]
    Answer(String),
}

/// Arguments of a run that takes a script.
const LOAD: &[&str] = &["-f", "-"];

/// The program, and the child that was started ahead. Clones share it.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
    ahead: Arc<Mutex<Option<Child>>>,
}

impl Nft {
    /// By name or path.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, ahead: Arc::default() }
    }

    /// One transaction: all of it or nothing.
    ///
    /// # Errors
    /// [`KernelError`].
    pub async fn load(&self, script: &str) -> Result<(), KernelError> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that somebody ended meanwhile is none.
        let ahead = ahead.and_then(|mut child| matches!(child.try_wait(), Ok(None)).then_some(child));
        let done = match ahead {
            Some(child) => self.finish(child, script).await.map(drop),
            None => self.run(LOAD, script).await.map(drop),
        };
        let next = self.clone();
        tokio::spawn(async move { next.start_ahead() });
        done
    }

    /// Has a child wait for the next script. Where none can be started, the next run says why.
    fn start_ahead(&self) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.is_none() {
            *ahead = self.start(LOAD).ok();
        }
    }

    /// Whether the kernel would take it; nothing is changed.
    ///
    /// # Errors
    /// [`KernelError`].
    pub async fn check(&self, script: &str) -> Result<(), KernelError> {
        self.run(&["-c", "-f", "-"], script).await.map(drop)
    }

    /// What nft prints for a question.
    ///
    /// # Errors
    /// [`KernelError`].
    pub async fn ask(&self, arguments: &[&str]) -> Result<String, KernelError> {
        self.run(arguments, "").await
    }

    fn broke(&self, error: &std::io::Error) -> KernelError {
        KernelError::Run { program: self.program.display().to_string(), problem: error.to_string() }
    }

    fn start(&self, arguments: &[&str]) -> Result<Child, KernelError> {
        let mut command = Command::new(&self.program);
        // Its complaints are read.
        command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| self.broke(&error))
    }

    async fn run(&self, arguments: &[&str], script: &str) -> Result<String, KernelError> {
        self.finish(self.start(arguments)?, script).await
    }

    /// Gives a child its script and waits for its end.
    async fn finish(&self, mut child: Child, script: &str) -> Result<String, KernelError> {
        let broke = |error: std::io::Error| self.broke(&error);
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut input) = input {
                // It may end before it has read all: its exit tells more than the broken pipe.
                let _ = input.write_all(script.as_bytes()).await;
            }
        };
        let all = async {
            let ((), output, errors) =
                tokio::join!(write, read(output, ANSWER_BYTES_MAX), read(errors, COMPLAINT_BYTES_MAX));
            (output, errors, child.wait().await)
        };
        let (output, errors, status) = timeout(RUN_MAX, all).await.map_err(|_| KernelError::Late)?;
        let (output, errors) = (output.map_err(broke)?, errors.map_err(broke)?);
        if !status.map_err(broke)?.success() {
            return Err(KernelError::Refused(String::from_utf8_lossy(&errors).trim().to_owned()));
        }
        if output.len() as u64 > ANSWER_BYTES_MAX {
            return Err(KernelError::TooLong);
        }
        String::from_utf8(output).map_err(|error| KernelError::Answer(error.to_string()))
    }
}

/// Reads to the end; keeps one byte more than the bound, so that it can be told.
async fn read(pipe: Option<impl AsyncRead + Unpin>, bound: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(bound + 1).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}
