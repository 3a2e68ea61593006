//! The place where a running process offers its listening sockets to the one that is to take over.

use std::io;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use log::warn;

use crate::app::bequest;
use crate::app::bequest::Beside;
use crate::app::handover;
use crate::app::handover::Given;
use crate::app::handover::Named;
use crate::app::handover::Wanted;
use crate::app::keys;
use crate::app::life::Life;
use crate::app::succession::Succession;

/// How long nobody who wants to take over is heard after the process ran out of something.
const REST: Duration = Duration::from_millis(100);

/// Offers the listening sockets to a process that is started with `-u`, and has one started for who asks.
pub(super) fn offer(place: UnixListener, succession: Succession, beside: Beside) -> io::Result<()> {
    let place = tokio::net::UnixListener::from_std(place)?;
    let both = Arc::new((succession, beside));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                biased;
                // The process that took over has the same socket: who asks means that one.
                () = both.1.life.until_replaced() => return,
                accepted = place.accept() => accepted,
            };
            let stream = accepted.and_then(|(stream, _)| stream.into_std());
            let both = Arc::clone(&both);
            let started = stream.and_then(|stream| {
                let thread = std::thread::Builder::new().name("handover".to_owned());
                thread.spawn(move || {
                    if let Err(e) = hand_over(stream, &both.0, &both.1) {
                        warn!(target: "edgeproxy::app", "handing over failed: {e}; going on");
                    }
                })
            });
            if let Err(e) = started {
                warn!(target: "edgeproxy::app", "somebody who wants to take over is not heard: {e}");
                tokio::time::sleep(REST).await;
            }
        }
    });
    Ok(())
}

/// Does what somebody wants who came to the place where sockets are offered. Blocks.
fn hand_over(mut stream: UnixStream, succession: &Succession, beside: &Beside) -> io::Result<()> {
    let life = &beside.life;
    match handover::wanted(&mut stream)? {
        Wanted::Nothing => Ok(()),
        Wanted::Stored => bequest::leave(stream, beside),
        Wanted::Keys => keys::leave(&mut stream, &beside.runtime.load()),
        Wanted::Successor => succession.answer(stream),
        Wanted::Sockets => {
            let Some(_turn) = life.taking.try_lock() else {
                return handover::refuse(stream, "another process is about to take over");
            };
            if life.was_replaced() {
                return handover::refuse(stream, "another process has just taken over");
            }
            // The new process reads what was changed after it has the sockets, and nothing is changed from here on.
            let keeper = Arc::clone(&beside.runtime.load().keeper);
            keeper.hand_on(true);
            // Copies of copies: a drain that begins meanwhile closes its own.
            let given = copies(life).and_then(|copies| handover::give(stream, &copies));
            if !matches!(given, Ok(Given::Replaced)) {
                keeper.hand_on(false);
            }
            match given? {
                Given::Replaced => {
                    beside.fellows.note_followed();
                    life.note_replaced();
                }
                Given::Died => warn!(
                    target: "edgeproxy::app",
                    "the process that was to take over did not start; going on"
                ),
            }
            Ok(())
        }
    }
}

fn copies(life: &Life) -> io::Result<Vec<Named>> {
    let offered = life.offered.lock();
    offered.iter().map(|(name, fd)| Ok((name.clone(), fd.try_clone()?))).collect()
}
