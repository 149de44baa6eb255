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

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A connection that takes no byte for this long is ended.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// Accepts as the listener within, and hangs up on who takes nothing.
pub(crate) struct Patient<L>(pub(crate) L);

impl<L: Listener> Listener for Patient<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.0.accept().await;
        (Connection { io, stalled: None }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection.
pub(crate) struct Connection<T> {
    io: T,
    /// Ends when the other end has taken nothing for too long; there while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Connection<T> {
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
        Pin::new(&mut self.io).poll_read(context, buffer)
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

    use axum::{Router, body::Body, routing::get};
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// One connection, and then none.
    struct One(Option<DuplexStream>);

    impl Listener for One {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.take() {
                Some(stream) => (stream, ()),
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
        tokio::spawn(async move {
            axum::serve(Patient(One(Some(near))), Router::new().route("/", endless)).await
        });
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
}
