//! A gate at which threads wait.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;

use super::PATIENCE;

/// Closed until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets those who wait pass, and all who come.
    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("nobody panics while holding it") = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    #[track_caller]
    pub(crate) fn pass(&self) {
        let open = self.0.0.lock().expect("nobody panics while holding it");
        let (open, _) =
            self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).expect("nobody panics");
        assert!(*open, "the gate was never opened");
    }
}
