//! `shoal get`: asks an edge for a URL as clients do, writes what comes, and, with -v, explains it:
//! site, key, tier, freshness and what made it, and who holds it.
//!
//! The body goes to standard output or a file, everything else to standard error; with --json one
//! document goes to standard output, and the body only to a file.

mod ask;
mod told;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;
use serde_json::{Value, json};

use super::control::ControlArgs;
use super::exit::Failure;
use super::{on_small_runtime, print};
use crate::text::cache_status::{self, Handled};
use ask::Answer;

/// Looks for what was just filled, and the pause between two.
const LOOKS_MAX: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// `shoal get`'s flags.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The URL, as clients ask for it
    url: String,
    /// Explain the answer: key, site, tier, freshness, holders; needs a member's admin listener
    /// and a token for all of it
    #[arg(long, short)]
    verbose: bool,
    /// Write the body to a file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A request header; can be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Ask for the head alone, and print it
    #[arg(long, short = 'I')]
    head: bool,
    /// Print the response's head before its body
    #[arg(long, short)]
    include: bool,
    /// Fail when the status is 400 or more, and write no body
    #[arg(long, short)]
    fail: bool,
    /// Show no progress
    #[arg(long, short)]
    silent: bool,
    /// Connect there, whatever host the URL names
    #[arg(long, value_name = "HOST:PORT")]
    connect_to: Option<String>,
    /// Trust the authorities in this file, PEM, and no others
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    #[command(flatten)]
    control: ControlArgs,
}

/// What `--json` prints; see docs/get-json.md.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
    version: String,
    status: u16,
    headers: Vec<(String, String)>,
    bytes: u64,
    first_byte_ms: f64,
    took_ms: f64,
    cache_status: Vec<Handled>,
    /// What the member knows of the URL.
    explained: Option<Value>,
    /// Why it was not asked, or did not say.
    unexplained: Option<String>,
}

/// Asks, writes and explains.
pub(super) fn run(args: &GetArgs) -> Result<(), Failure> {
    let headers = headers(&args.headers)?;
    let uri: Uri = args.url.parse().ok().filter(is_url).ok_or_else(|| {
        Failure::usage(format!("the URL is {:?}; expected http:// or https://, a host", args.url))
    })?;
    on_small_runtime(async {
        let answer = ask::get(args, &uri, &headers).await?;
        let (explained, unexplained) = match args.verbose {
            true => explain(args, &headers, &answer).await,
            false => (None, None),
        };
        let report = report(args, &answer, (explained, unexplained));
        if args.control.json {
            let text = serde_json::to_string(&report).map_err(Failure::run)?;
            print(&format!("{text}\n"))?;
        } else if args.verbose {
            told::tell(&report);
        }
        match answer.failed {
            Some(failed) => Err(Failure::run(failed)),
            None => Ok(()),
        }
    })
}

fn is_url(uri: &Uri) -> bool {
    let scheme = uri.scheme_str().is_some_and(|scheme| scheme == "http" || scheme == "https");
    scheme && uri.host().is_some_and(|host| !host.is_empty())
}

fn headers(lines: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let wrong = || Failure::usage(format!("-H is {line:?}; expected \"NAME: VALUE\""));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?);
    }
    Ok(headers)
}

/// What a member knows of the URL, or why it does not say.
async fn explain(
    args: &GetArgs,
    headers: &HeaderMap,
    answer: &Answer,
) -> (Option<Value>, Option<String>) {
    let sent =
        headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let body = json!({ "url": args.url, "headers": sent.collect::<Vec<_>>() });
    let stored = cache_status(&answer.headers).iter().any(|handled| handled.stored);
    let mut looks = 0;
    loop {
        looks += 1;
        match args.control.call(Method::POST, "/v1/explain", body.clone()).await {
            // What was just filled is in the store a moment after its last byte was sent.
            Ok(explained) if explained["here"].is_null() && stored && looks < LOOKS_MAX => {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            Ok(explained) => return (Some(explained), None),
            Err(failure) => return (None, Some(failure.text().trim_end().to_owned())),
        }
    }
}

fn report(
    args: &GetArgs,
    answer: &Answer,
    (explained, unexplained): (Option<Value>, Option<String>),
) -> Report {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> =
        answer.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Report {
        url: args.url.clone(),
        version: format!("{:?}", answer.version),
        status: answer.status.as_u16(),
        headers,
        bytes: answer.bytes,
        first_byte_ms: millis(answer.first_byte),
        took_ms: millis(answer.took),
        cache_status: cache_status(&answer.headers),
        explained,
        unexplained,
    }
}

fn cache_status(headers: &HeaderMap) -> Vec<Handled> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let said: Vec<_> = headers.get_all("cache-status").iter().map(text).collect();
    cache_status::read(&said.join(", "))
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_curl_reads_them() {
        let read = headers(&["X-A: b: c".to_owned(), "accept:text/html".to_owned()]).unwrap();
        assert_eq!(
            (&read["x-a"], &read["accept"]),
            (&"b: c".parse().unwrap(), &"text/html".parse().unwrap())
        );
        for wrong in ["", "no colon", "bad name: x", ": x"] {
            let refused = headers(&[wrong.to_owned()]).unwrap_err();
            assert_eq!(refused.code(), crate::cli::exit::USAGE, "{wrong}");
        }
    }

    #[test]
    fn urls_have_a_scheme_and_a_host() {
        for (text, right) in [
            ("http://a.test/x", true),
            ("https://a.test", true),
            ("ftp://a.test/x", false),
            ("/x", false),
            ("a.test", false),
        ] {
            assert_eq!(text.parse::<Uri>().is_ok_and(|uri| is_url(&uri)), right, "{text}");
        }
    }
}
