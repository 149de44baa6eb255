//! The console as browsers hold it open.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, ensure};
use tokio::{task::JoinSet, time::Instant};

use crate::plane::Operator;

/// A browser that an operator is signed in at.
pub struct Console {
    http: reqwest::Client,
    url: String,
    cookie: String,
}

impl Console {
    /// Signs in by the operator's key.
    ///
    /// # Errors
    /// It is refused.
    pub async fn of(operator: &Operator) -> anyhow::Result<Self> {
        let http =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let (url, key) = operator.door();
        let form = http.post(format!("{url}/sign-in")).header("sec-fetch-site", "same-origin");
        let answer = form.form(&[("key", key)]).send().await?;
        let cookie = answer.headers().get("set-cookie").context("no session")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(Self { http, url: url.to_owned(), cookie })
    }

    /// The fleet's page: its text, and how many ms it took.
    ///
    /// # Errors
    /// It does not come.
    pub async fn first_screen(&self) -> anyhow::Result<(String, f64)> {
        let began = Instant::now();
        let answer = self.ask("/").await?;
        let text = answer.text().await?;
        Ok((text, began.elapsed().as_secs_f64() * 1_000.0))
    }

    /// Opens so many, each live from its page on, and follows them until this is dropped.
    ///
    /// # Errors
    /// One does not open.
    pub async fn open(&self, consoles: usize) -> anyhow::Result<Open> {
        let mut open = Open { read: Arc::default(), _streams: JoinSet::new() };
        for _ in 0..consoles {
            let (page, _) = self.first_screen().await?;
            let since = page.split("data-live=\"").nth(1).context("a page that is not live")?;
            let since = since.split('"').next().unwrap_or_default();
            let mut stream = self.ask(&format!("/live?since={since}")).await?;
            let read = Arc::clone(&open.read);
            open._streams.spawn(async move {
                while let Ok(Some(part)) = stream.chunk().await {
                    read.fetch_add(part.len(), Ordering::Relaxed);
                }
            });
        }
        Ok(open)
    }

    async fn ask(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let asking = self.http.get(format!("{}{path}", self.url)).header("cookie", &self.cookie);
        let answer = asking.send().await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        Ok(answer)
    }
}

/// Consoles that are open.
pub struct Open {
    read: Arc<AtomicUsize>,
    _streams: JoinSet<()>,
}

impl Open {
    /// Bytes that all of them were told.
    #[must_use]
    pub fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}
