//! The compiled routing table.

use crate::route::Route;

/// All routes, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct Table {
    routes: Vec<Route>,
}

impl Table {
    /// Compiles routes, given in the order written.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// The routes in the order written.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}
