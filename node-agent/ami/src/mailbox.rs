//! A bounded queue whose writer never waits and whose reader is told exactly how much it lost.
//!
//! The socket's reader fills these: Asterisk resets a session whose socket stays full for 100 ms, so a slow
//! consumer may cost its own items and nothing else.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) enum Slot<T> {
    Item(T),
    Lost(u64),
}

#[derive(Debug)]
struct State<T, E> {
    slots: VecDeque<Slot<T>>,
    end: Option<E>,
}

#[derive(Debug)]
pub(crate) struct Mailbox<T, E> {
    capacity: usize,
    state: Mutex<State<T, E>>,
    filled: Notify,
}

impl<T, E: Clone> Mailbox<T, E> {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = Mutex::new(State { slots: VecDeque::new(), end: None });
        Self { capacity, state, filled: Notify::new() }
    }

    /// Puts an item in; past the capacity it is counted instead, in its place in the order.
    pub(crate) fn put(&self, item: T) {
        self.with(|state| {
            if state.slots.len() < self.capacity {
                state.slots.push_back(Slot::Item(item));
            } else if let Some(Slot::Lost(lost)) = state.slots.back_mut() {
                *lost += 1;
            } else {
                state.slots.push_back(Slot::Lost(1));
            }
        });
        self.filled.notify_one();
    }

    /// No more items will come; what is in the box is still read.
    pub(crate) fn end(&self, why: E) {
        self.with(|state| {
            state.end.get_or_insert(why);
        });
        self.filled.notify_one();
    }

    /// The next slot, or the reason of the end (again and again). Cancel-safe; of several readers
    /// each item goes to one.
    pub(crate) async fn take(&self) -> Result<Slot<T>, E> {
        loop {
            let next = self.with(|state| match state.slots.pop_front() {
                Some(slot) => Some(Ok(slot)),
                None => state.end.clone().map(Err),
            });
            match next {
                Some(next) => {
                    if next.is_err() {
                        // Pass the end on to whoever else waits.
                        self.filled.notify_one();
                    }
                    return next;
                }
                // `notify_one` keeps one permit, so a `put` between the look and the wait is not missed.
                None => self.filled.notified().await,
            }
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut State<T, E>) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_lost_is_told_in_its_place() {
        let mailbox: Mailbox<u32, &str> = Mailbox::new(2);
        (1..=5).for_each(|n| mailbox.put(n));
        assert!(matches!(mailbox.take().await, Ok(Slot::Item(1))));
        assert!(matches!(mailbox.take().await, Ok(Slot::Item(2))));
        mailbox.put(6);
        mailbox.end("cut");
        assert!(matches!(mailbox.take().await, Ok(Slot::Lost(3))));
        assert!(matches!(mailbox.take().await, Ok(Slot::Item(6))));
        assert!(matches!(mailbox.take().await, Err("cut")));
        assert!(matches!(mailbox.take().await, Err("cut")));
    }
}
