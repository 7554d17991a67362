//! Who may come in and where to: pure rules over a request's path and Origin fields, the same for every version of HTTP.

use std::str::FromStr;

/// Longest name of a room, in bytes.
pub const MAX_ROOM_NAME: usize = 64;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Every message comes back.
    Echo,
    /// Every message is thrown away.
    Sink,
    /// Every message goes to the others in the room of this name; `/broadcast` is the one without a name.
    Room(String),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Nothing is at that path.
    NotFound,
    /// The page that asks comes from elsewhere, or does not say where from and must.
    Origin,
}

/// Rules for requests.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Origins that may connect; none named is all.
    pub origins: Vec<OriginRule>,
    /// Refuse requests that name no origin, as programs' do unless they choose to.
    pub require_origin: bool,
}

impl Policy {
    /// Where a request for `path` (without its query) goes that has these values in `Origin` fields.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit<'a>(
        &self,
        path: &str,
        origins: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Route, Denial> {
        let mut origins = origins.into_iter();
        let allowed = match (origins.next(), origins.next()) {
            (None, _) => !self.require_origin,
            (Some(origin), None) => {
                self.origins.is_empty() || self.origins.iter().any(|rule| rule.matches(origin))
            }
            // Which of them is true cannot be known.
            (Some(_), Some(_)) => false,
        };
        if !allowed {
            return Err(Denial::Origin);
        }
        match path {
            "/" | "/echo" => Ok(Route::Echo),
            "/sink" => Ok(Route::Sink),
            "/broadcast" => Ok(Route::Room(String::new())),
            _ => path.strip_prefix("/broadcast/").and_then(room).ok_or(Denial::NotFound),
        }
    }
}

/// A room's name is what needs no escaping in a URL, so that it has one spelling only.
fn room(name: &str) -> Option<Route> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let good = (1..=MAX_ROOM_NAME).contains(&name.len()) && name.bytes().all(plain);
    good.then(|| Route::Room(name.to_owned()))
}

/// Origins that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginRule {
    /// `None` is any scheme and port.
    scheme: Option<String>,
    /// With `subdomains`, what follows the first label's dot, the dot included.
    rest: String,
    subdomains: bool,
}

/// `https://example.org:8443`, exactly this one; `https://*.example.org`, the names below it; `*.example.org`, the same
/// for any scheme and port; `null`, pages that have no origin.
impl FromStr for OriginRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = match lower.split_once("://") {
            Some((scheme, authority)) => (Some(scheme.to_owned()), authority),
            None => (None, lower.as_str()),
        };
        let (subdomains, rest) = match authority.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, authority),
        };
        let named = match &scheme {
            Some(scheme) => {
                !scheme.is_empty()
                    && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            }
            None => subdomains && !rest.contains(':') || rest == "null",
        };
        let host = rest.trim_start_matches('.');
        let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
        if !named || !plain || host.is_empty() || subdomains != rest.starts_with('.') {
            return Err("an origin is SCHEME://HOST[:PORT], SCHEME://*.DOMAIN[:PORT], *.DOMAIN or null, without a path".into());
        }
        Ok(Self { scheme, rest: rest.to_owned(), subdomains })
    }
}

impl OriginRule {
    /// Whether `origin`, as a browser sends it, is one of these.
    fn matches(&self, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        let origin = origin.to_ascii_lowercase();
        let (scheme, authority) = match origin.split_once("://") {
            Some((scheme, authority)) => (Some(scheme), authority),
            None => (None, origin.as_str()),
        };
        match &self.scheme {
            Some(expected) if scheme != Some(expected) => return false,
            None if self.subdomains => {
                // Any scheme and port, but there must be a scheme.
                let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
                    if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { authority }
                });
                return scheme.is_some() && below(host, &self.rest);
            }
            Some(_) | None => {}
        }
        if self.subdomains { below(authority, &self.rest) } else { authority == self.rest }
    }
}

/// Whether `host` is one or more labels and then `rest`, and nothing that could be something else to a browser.
fn below(host: &str, rest: &str) -> bool {
    let label = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    host.strip_suffix(rest)
        .is_some_and(|labels| !labels.is_empty() && !labels.starts_with('.') && labels.bytes().all(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str], require_origin: bool) -> Policy {
        Policy { origins: rules.iter().map(|rule| rule.parse().unwrap()).collect(), require_origin }
    }

    fn allows(policy: &Policy, origin: &str) -> bool {
        policy.admit("/", [origin.as_bytes()]).is_ok()
    }

    #[test]
    fn paths_and_rooms() {
        let policy = Policy::default();
        let long = "x".repeat(MAX_ROOM_NAME);
        let room = |name: &str| Ok(Route::Room(name.into()));
        for (path, route) in [
            ("/", Ok(Route::Echo)),
            ("/echo", Ok(Route::Echo)),
            ("/sink", Ok(Route::Sink)),
            ("/broadcast", room("")),
            ("/broadcast/a-Room_1.~", room("a-Room_1.~")),
            (&format!("/broadcast/{long}"), room(&long)),
            (&format!("/broadcast/{long}x"), Err(Denial::NotFound)),
            ("/broadcast/", Err(Denial::NotFound)),
            ("/broadcast/a/b", Err(Denial::NotFound)),
            ("/broadcast/a%62", Err(Denial::NotFound)),
            ("/broadcast/é", Err(Denial::NotFound)),
            ("/broadcasts", Err(Denial::NotFound)),
            ("/Echo", Err(Denial::NotFound)),
            ("/echo/", Err(Denial::NotFound)),
            ("", Err(Denial::NotFound)),
        ] {
            assert_eq!(policy.admit(path, []), route, "{path}");
        }
    }

    #[test]
    fn an_origin_is_allowed_by_the_rules_alone() {
        let some = policy(
            &["https://example.org", "http://a.test:8080", "*.example.net", "https://*.example.com"],
            false,
        );
        for origin in [
            "https://example.org",
            "HTTPS://Example.org",
            "http://a.test:8080",
            "https://a.example.net",
            "http://b.a.example.net:81",
            "https://www.example.com",
        ] {
            assert!(allows(&some, origin), "{origin}");
        }
        for origin in [
            "http://example.org",
            "https://example.org:444",
            "https://www.example.org",
            "https://example.org.evil.test",
            "http://a.test",
            "https://example.net",
            "https://evilexample.net",
            "https://.example.net",
            "https://evil.test/.example.net",
            "https://evil.test#.example.net",
            "https://x@evil.test:80.example.net",
            "a.example.net",
            "http://www.example.com",
            "https://www.example.com:444",
            "null",
            "",
        ] {
            assert!(!allows(&some, origin), "{origin}");
        }
        assert_eq!(some.admit("/", [&b"https://\xFF.example.net"[..]]), Err(Denial::Origin));
        assert!(allows(&Policy::default(), "https://anything.test"));
        assert!(allows(&policy(&["null"], false), "null"));
    }

    #[test]
    fn no_origin_is_a_matter_of_its_own_and_two_are_none() {
        let some = policy(&["https://example.org"], false);
        assert_eq!(some.admit("/", []), Ok(Route::Echo));
        let one = &b"https://example.org"[..];
        assert_eq!(some.admit("/", [one, one]), Err(Denial::Origin));
        let strict = policy(&[], true);
        assert_eq!(strict.admit("/", []), Err(Denial::Origin));
        assert_eq!(strict.admit("/", [one]), Ok(Route::Echo));
        // Whoever may not come in does not hear what is there.
        assert_eq!(strict.admit("/nothing", []), Err(Denial::Origin));
    }

    #[test]
    fn what_is_no_origin_is_no_rule() {
        for text in [
            "",
            "example.org",
            "https://",
            "https://example.org/",
            "https://example.org/path",
            "*",
            "*.",
            "*example.org",
            "https://*",
            "://example.org",
            "https://a b",
            ".example.org",
            "*.example.org:80",
            "https://a*.example.org",
        ] {
            assert!(text.parse::<OriginRule>().is_err(), "{text}");
        }
    }
}
