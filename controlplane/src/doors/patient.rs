//! Connections whose other end takes what is written to it, or is hung up on.
//!
//! An answer that nobody reads would keep its connection, and what it holds, for good: HTTP waits until the socket
//! takes bytes again. Here it waits for [`STALLED_MAX`]. Who reads slowly, but reads, is waited for.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// A connection that takes no byte for this long is ended.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// A connection.
pub(super) struct Connection<T> {
    io: T,
    /// Ends when the other end has taken nothing for too long; there while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Ends when the other end has said nothing for too long, where it has to say something ever so often.
    quiet: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl<T> Connection<T> {
    /// One that may be quiet.
    pub(super) fn new(io: T) -> Self {
        Self { io, stalled: None, quiet: None }
    }

    /// One from which a byte must come within this time after the one before.
    pub(super) fn talking(io: T, quiet_max: Duration) -> Self {
        Self { quiet: Some((quiet_max, Box::pin(sleep(quiet_max)))), ..Self::new(io) }
    }

    fn within<V>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<V>>) -> Poll<io::Result<V>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED_MAX)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        let Some((quiet_max, quiet)) = &mut this.quiet else { return read };
        if read.is_ready() {
            quiet.as_mut().reset(Instant::now() + *quiet_max);
            return read;
        }
        ready!(quiet.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end says nothing")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(context, bytes);
        self.within(context, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.io).poll_shutdown(context);
        self.within(context, ended)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        self.within(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Weak},
    };

    use axum::{
        Router,
        body::Body,
        routing::get,
        serve::{self, Listener},
    };
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// One connection, and then none.
    struct One(Option<DuplexStream>);

    impl Listener for One {
        type Io = Connection<DuplexStream>;
        type Addr = ();

        async fn accept(&mut self) -> (Self::Io, ()) {
            match self.0.take() {
                Some(stream) => (Connection::new(stream), ()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader of an answer without an end, and what that answer holds.
    async fn reader() -> (DuplexStream, Weak<()>) {
        let held = Arc::new(());
        let weak = Arc::downgrade(&held);
        let endless = get(move || {
            let held = Arc::clone(&held);
            async move {
                let parts = stream::repeat_with(move || {
                    let _ = &held;
                    Ok::<_, Infallible>("x".repeat(1_024))
                });
                Body::from_stream(parts)
            }
        });
        let (near, mut far) = duplex(4_096);
        tokio::spawn(async move { serve::serve(One(Some(near)), Router::new().route("/", endless)).await });
        far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        (far, weak)
    }

    /// The router holds it once.
    fn is_open(held: &Weak<()>) -> bool {
        held.strong_count() > 1
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_hung_up_on_and_all_is_free_again() {
        let (mut far, held) = reader().await;
        sleep(STALLED_MAX - Duration::from_secs(1)).await;
        assert!(is_open(&held), "it has its time");
        sleep(Duration::from_secs(2)).await;
        assert!(!is_open(&held), "its answer is still there");
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() < 10_000, "what was written before, and no more: {}", rest.len());
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_waited_for() {
        let (mut far, held) = reader().await;
        let mut part = [0; 1_024];
        for _ in 0..20 {
            sleep(STALLED_MAX - Duration::from_secs(1)).await;
            far.read_exact(&mut part).await.unwrap();
        }
        assert!(is_open(&held));
    }

    #[tokio::test(start_paused = true)]
    async fn who_must_talk_and_says_nothing_is_hung_up_on() {
        let quiet_max = Duration::from_secs(60);
        let (near, mut far) = duplex(64);
        let mut near = Connection::talking(near, quiet_max);
        let mut byte = [0];
        for _ in 0..3 {
            let (read, wrote) = tokio::join!(near.read(&mut byte), async {
                sleep(quiet_max - Duration::from_secs(1)).await;
                far.write_all(b"x").await
            });
            wrote.unwrap();
            assert_eq!(read.unwrap(), 1);
        }
        let began = Instant::now();
        assert_eq!(near.read(&mut byte).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), quiet_max.as_secs());
    }
}
