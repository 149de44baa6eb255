//! A cable between two programs, which can lose what goes through it, keep it back, fall silent, and be cut.

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

/// Where bytes go: to who dials, or to who is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Who dials.
    Agent,
    /// Who is dialled.
    Plane,
}

#[derive(Debug)]
struct Fault {
    far: SocketAddr,
    loses: Option<To>,
    /// What goes there waits.
    keeps: Option<To>,
    /// Bytes lost since it does, or that wait.
    lost: u64,
    /// How often it was cut.
    cuts: u64,
    /// Who dials is refused.
    is_apart: bool,
    /// How many have dialled.
    dialled: u64,
    /// The first so many of them hear and say nothing more, and nobody is told.
    silent: u64,
    /// Whoever says this next falls silent with it.
    last_word: Option<&'static str>,
    /// Who has said it.
    silenced: Vec<u64>,
}

/// See the module. It goes when dropped.
#[derive(Debug)]
pub struct Cable {
    /// Where to dial.
    pub address: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    listening: JoinHandle<()>,
}

impl Cable {
    /// A whole one to this address.
    pub async fn to(far: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = Fault {
            far,
            loses: None,
            keeps: None,
            lost: 0,
            cuts: 0,
            is_apart: false,
            dialled: 0,
            silent: 0,
            last_word: None,
            silenced: Vec::new(),
        };
        let fault = Arc::new(watch::Sender::new(fault));
        let shared = Arc::clone(&fault);
        let listening = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (far, is_apart) = (shared.borrow().far, shared.borrow().is_apart);
                if is_apart {
                    continue;
                }
                let Ok(far) = TcpStream::connect(far).await else { continue };
                let mut number = 0;
                shared.send_modify(|fault| (fault.dialled, number) = (fault.dialled + 1, fault.dialled + 1));
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                tokio::spawn(carry(from_near, to_far, To::Plane, number, Arc::clone(&shared)));
                tokio::spawn(carry(from_far, to_near, To::Agent, number, Arc::clone(&shared)));
            }
        });
        Self { address, fault, listening }
    }

    /// From now on nothing arrives there, and nobody notices.
    pub fn lose(&self, to: To) {
        self.fault.send_modify(|fault| (fault.loses, fault.lost) = (Some(to), 0));
    }

    /// From now on what goes there waits on the way, and nobody notices.
    pub fn keep_back(&self, to: To) {
        self.fault.send_modify(|fault| (fault.keeps, fault.lost) = (Some(to), 0));
    }

    /// What was kept back arrives.
    pub fn let_through(&self) {
        self.fault.send_modify(|fault| fault.keeps = None);
    }

    /// Bytes that were lost, or are kept back.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.fault.borrow().lost
    }

    /// Connections that there are hear and say nothing more, for ever; new ones are whole.
    pub fn silence(&self) {
        self.fault.send_modify(|fault| fault.silent = fault.dialled);
    }

    /// The connection that is to carry this next falls silent with it, in the middle of what is being said.
    pub fn silence_at(&self, last_word: &'static str) {
        self.fault.send_modify(|fault| fault.last_word = Some(last_word));
    }

    /// Whether it has.
    #[must_use]
    pub fn has_silenced(&self) -> bool {
        !self.fault.borrow().silenced.is_empty()
    }

    /// Ends every connection; new ones are whole.
    pub fn cut(&self) {
        self.fault.send_modify(|fault| (fault.loses, fault.cuts) = (None, fault.cuts + 1));
    }

    /// Whoever dials from now on is led there.
    pub fn plug_into(&self, far: SocketAddr) {
        self.fault.send_modify(|fault| fault.far = far);
    }

    /// Nobody gets through any more, or everybody again.
    pub fn keep_apart(&self, is_apart: bool) {
        self.fault.send_modify(|fault| fault.is_apart = is_apart);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut into: OwnedWriteHalf,
    to: To,
    number: u64,
    fault: Arc<watch::Sender<Fault>>,
) {
    let (mut cut, mut silence, mut kept) = (fault.subscribe(), fault.subscribe(), fault.subscribe());
    let cuts = cut.borrow().cuts;
    let mut buffer = vec![0; 16 * 1024];
    let carrying = async {
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            let says = |word: &str| buffer[..count].windows(word.len()).any(|part| part == word.as_bytes());
            if fault.borrow().last_word.is_some_and(says) {
                fault.send_modify(|fault| {
                    fault.last_word = None;
                    fault.silenced.push(number);
                });
                return std::future::pending().await;
            }
            if fault.borrow().loses == Some(to) {
                fault.send_modify(|fault| fault.lost += count as u64);
                continue;
            }
            if fault.borrow().keeps == Some(to) {
                fault.send_modify(|fault| fault.lost += count as u64);
                // The sender is here.
                let _ = kept.wait_for(|fault| fault.keeps != Some(to)).await;
            }
            if into.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let silent = async {
        let _ = silence.wait_for(|fault| fault.silent >= number || fault.silenced.contains(&number)).await;
    };
    let is_silent = tokio::select! {
        biased;
        _ = cut.wait_for(|fault| fault.cuts != cuts) => false,
        () = silent => true,
        () = carrying => false,
    };
    if is_silent {
        // Neither end is told that the other one has gone.
        let _ = cut.wait_for(|fault| fault.cuts != cuts).await;
    }
}
