//! The case in which the names of fields are written over HTTP/1.1.

use http::HeaderName;
use http::header;

/// The case in which Pingora writes a name, so that its answers and ours look alike.
#[must_use]
pub fn of(name: &HeaderName) -> &str {
    match *name {
        header::ACCEPT_RANGES => "Accept-Ranges",
        header::AGE => "Age",
        header::CACHE_CONTROL => "Cache-Control",
        header::CONNECTION => "Connection",
        header::CONTENT_TYPE => "Content-Type",
        header::CONTENT_ENCODING => "Content-Encoding",
        header::CONTENT_LENGTH => "Content-Length",
        header::DATE => "Date",
        header::SERVER => "Server",
        header::SET_COOKIE => "Set-Cookie",
        _ => name.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_names_have_their_capitals_and_others_have_none() {
        assert_eq!(of(&header::CONTENT_TYPE), "Content-Type");
        assert_eq!(of(&HeaderName::from_static("x-custom")), "x-custom");
    }
}
