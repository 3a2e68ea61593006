//! Web cache deception: a personal page under a name that looks like a file.
//!
//! An application that takes `/account/a.css` for `/account` answers an attacker's link with the
//! victim's page. Where the page says nothing about caching and a rule of ours gives it a lifetime, it
//! would be kept for everybody who knows the link. A page, however, calls itself one: its Content-Type
//! does not fit the name.

use http::HeaderMap;
use http::header;

/// Whose responses are held against the name that they were asked for under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nobody's.
    Off,
    /// Those that do not say themselves how long they are fresh.
    Unstated,
    /// All.
    All,
}

/// Whether a response is what the name promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The name promises nothing that we know of.
    Unknown,
    /// It is.
    Fits,
    /// It is something else.
    Differs,
}

/// Media types that a name may promise: the part before the slash, or all of it.
type Types = &'static [&'static str];

const TEXT: Types = &["text/plain", "text/csv", "text/markdown", "text/vtt"];
const SCRIPT: Types = &["text/javascript", "application/javascript", "application/x-javascript"];
const IMAGE: Types = &["image/"];
const FONT: Types =
    &["font/", "application/font-", "application/x-font-", "application/vnd.ms-fontobject"];
const MEDIA: Types = &["audio/", "video/", "application/ogg", "application/vnd.apple.mpegurl"];
const ARCHIVE: Types = &[
    "application/zip",
    "application/gzip",
    "application/x-gzip",
    "application/x-tar",
    "application/x-bzip2",
    "application/x-xz",
    "application/x-7z-compressed",
    "application/zstd",
];

/// What the names of files that sites keep beside their pages promise. An extension that applications
/// also use for pages (`.html`, `.php`, `.json`, `.xml`) promises nothing here.
fn promised(extension: &str) -> Option<Types> {
    Some(match extension {
        "css" => &["text/css"],
        "js" | "mjs" => SCRIPT,
        "txt" | "csv" | "md" | "vtt" => TEXT,
        "png" | "jpg" | "jpeg" | "gif" | "webp" | "avif" | "svg" | "ico" | "bmp" | "tif"
        | "tiff" => IMAGE,
        "woff" | "woff2" | "ttf" | "otf" | "eot" => FONT,
        "mp3" | "mp4" | "m4a" | "m4v" | "webm" | "ogg" | "ogv" | "wav" | "flac" | "mov"
        | "m3u8" | "ts" => MEDIA,
        "zip" | "gz" | "tgz" | "tar" | "bz2" | "xz" | "7z" | "zst" => ARCHIVE,
        "pdf" => &["application/pdf"],
        "wasm" => &["application/wasm"],
        _ => return None,
    })
}

/// Whether a response fits the last segment of the path that it answers. `application/octet-stream` fits
/// everything, since that is what a server calls a file that it does not know, and no browser shows it as
/// a page. Of a response that does not say what it is nothing is known; applications say it of pages.
pub fn fit(path: &str, response: &HeaderMap) -> Fit {
    let segment = path.rsplit('/').next().unwrap_or(path);
    // Parameters of a segment are not part of the name (RFC 3986 §3.3).
    let name = segment.split([';', '%']).next().unwrap_or(segment);
    let Some((_, extension)) = name.rsplit_once('.').or_else(|| segment.rsplit_once('.')) else {
        return Fit::Unknown;
    };
    let Some(promised) = promised(&extension.to_ascii_lowercase()) else { return Fit::Unknown };
    let mut lines = response.get_all(header::CONTENT_TYPE).iter();
    let Some(line) = lines.next() else { return Fit::Unknown };
    if lines.next().is_some() {
        return Fit::Differs;
    }
    let said = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
    let said = said.split(';').next().unwrap_or_default().trim();
    let fits =
        said == "application/octet-stream" || promised.iter().any(|kind| said.starts_with(kind));
    if fits { Fit::Fits } else { Fit::Differs }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn is(path: &str, content_type: &[&'static str]) -> Fit {
        let mut headers = HeaderMap::new();
        for line in content_type {
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static(line));
        }
        fit(path, &headers)
    }

    #[test]
    fn a_page_under_the_name_of_a_file_differs() {
        for path in [
            "/account/a.css",
            "/account/A.JPG",
            "/x/y.js",
            "/x.woff2",
            "/me/a.css;b",
            "/me/a.css%00",
        ] {
            assert_eq!(is(path, &["text/html; charset=utf-8"]), Fit::Differs, "{path}");
        }
    }

    #[test]
    fn a_file_under_its_name_fits() {
        for (path, kind) in [
            ("/a.css", "text/css; charset=utf-8"),
            ("/a.js", "application/javascript"),
            ("/a.mjs", "Text/JavaScript"),
            ("/a.png", "image/png"),
            ("/a.svg", "image/svg+xml"),
            ("/a.pdf", "application/pdf"),
            ("/a.tar.gz", "application/gzip"),
            ("/a.css", "application/octet-stream"),
        ] {
            assert_eq!(is(path, &[kind]), Fit::Fits, "{path} {kind}");
        }
    }

    #[test]
    fn names_that_pages_have_promise_nothing() {
        for path in
            ["/", "/account", "/a.html", "/a.php", "/a.json", "/v1.2/users", "/.well-known/x"]
        {
            assert_eq!(is(path, &["text/html"]), Fit::Unknown, "{path}");
        }
    }

    #[test]
    fn what_says_two_things_is_neither_and_what_says_nothing_is_unknown() {
        assert_eq!(is("/a.css", &[]), Fit::Unknown);
        assert_eq!(is("/a.css", &["text/css", "text/html"]), Fit::Differs);
    }
}
