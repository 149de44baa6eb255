//! The cable between a node and the control plane, which can lose what goes through it, and be cut.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Agent,
    Plane,
}

#[derive(Debug)]
struct Fault {
    plane: SocketAddr,
    loses: Option<To>,
    /// Bytes lost since it does.
    lost: u64,
    /// How often it was cut.
    cuts: u64,
    /// Who dials is refused.
    is_apart: bool,
}

pub(crate) struct Cable {
    pub(crate) address: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    listening: JoinHandle<()>,
}

impl Cable {
    pub(crate) async fn to(plane: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault =
            Arc::new(watch::Sender::new(Fault { plane, loses: None, lost: 0, cuts: 0, is_apart: false }));
        let shared = Arc::clone(&fault);
        let listening = tokio::spawn(async move {
            loop {
                let (agent, _) = listener.accept().await.unwrap();
                let (plane, is_apart) = (shared.borrow().plane, shared.borrow().is_apart);
                if is_apart {
                    continue;
                }
                let (from_agent, to_agent) = agent.into_split();
                let (from_plane, to_plane) = TcpStream::connect(plane).await.unwrap().into_split();
                tokio::spawn(carry(from_agent, to_plane, To::Plane, Arc::clone(&shared)));
                tokio::spawn(carry(from_plane, to_agent, To::Agent, Arc::clone(&shared)));
            }
        });
        Self { address, fault, listening }
    }

    /// From now on nothing arrives there, and nobody notices.
    pub(crate) fn lose(&self, to: To) {
        self.fault.send_modify(|fault| (fault.loses, fault.lost) = (Some(to), 0));
    }

    pub(crate) fn lost(&self) -> u64 {
        self.fault.borrow().lost
    }

    /// Ends every connection; new ones are whole.
    pub(crate) fn cut(&self) {
        self.fault.send_modify(|fault| (fault.loses, fault.cuts) = (None, fault.cuts + 1));
    }

    /// Whoever dials from now on is led to this control plane.
    pub(crate) fn plug_into(&self, plane: SocketAddr) {
        self.fault.send_modify(|fault| fault.plane = plane);
    }

    /// Nobody gets through any more, or everybody again.
    pub(crate) fn keep_apart(&self, is_apart: bool) {
        self.fault.send_modify(|fault| fault.is_apart = is_apart);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn carry(mut from: OwnedReadHalf, mut into: OwnedWriteHalf, to: To, fault: Arc<watch::Sender<Fault>>) {
    let mut faults = fault.subscribe();
    let cuts = faults.borrow().cuts;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let cut = async {
            // The sender is here.
            let _ = faults.wait_for(|fault| fault.cuts != cuts).await;
        };
        tokio::select! {
            biased;
            () = cut => return,
            read = from.read(&mut buffer) => {
                let Ok(count @ 1..) = read else { return };
                if fault.borrow().loses == Some(to) {
                    fault.send_modify(|fault| fault.lost += count as u64);
                } else if into.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
