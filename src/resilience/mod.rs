//! Resilience: what is done about peers that fail, are slow, or come and go.
//!
//! | file | asks |
//! |---|---|
//! | [`breaker`] | may this peer be asked at all, after how it failed? |
//! | [`health`] | what do the active checks of a peer add up to? |
//! | [`ejection`] | does this peer fail where its group does not? |
//! | [`retry`] | is this failed request tried again, and when? |
//! | [`budget`] | are there few enough retries in the whole group? |
//! | [`hedge`] | has this request taken so long that another one is sent beside it? |
//! | [`limit`] | how many requests at once does the group take without queueing? |
//! | [`window`] | how much of what happened lately? |
//!
//! Everything here is about one peer or one group and is shared by all threads: counts are atomics,
//! nothing waits for a lock. Time is an argument, as the time since some start; chance is one, too.

pub mod breaker;
pub mod budget;
pub mod ejection;
pub mod health;
pub mod hedge;
pub mod limit;
pub mod retry;
pub mod window;
