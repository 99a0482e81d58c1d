//! What the others are told (PURE), after their own guides: nginx's on caching, keep-alive, sendfile
//! and open files, Varnish's defaults with HTTP/2. Nobody writes an access log.
//!
//! `tcp_nopush` stays off, as it is by default: on loopback, where a segment is 64 KiB long, it makes
//! answers of that length wait for a timer, 40 ms each. Small answers over HTTP/2 wait as long with
//! `sendfile on`, so that it is off for HTTP/2, where it gains nothing.

use std::{net::SocketAddr, path::Path};

/// nginx in front of files.
pub(super) fn origin(folder: &Path, listen: SocketAddr) -> String {
    let server = format!(
        "server {{ listen {listen}; root {}; expires 1h; }}",
        folder.join("files").display()
    );
    nginx(folder, 1, &server)
}

/// Where the others listen.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    pub(super) http1: SocketAddr,
    pub(super) http2: SocketAddr,
    pub(super) tls: Option<SocketAddr>,
}

/// nginx as a cache in front of `origin`.
pub(super) fn cache(folder: &Path, doors: &Doors, origin: SocketAddr, cores: usize) -> String {
    let at = folder.display();
    let tls = doors.tls.map_or(String::new(), |tls| {
        let files = folder.parent().unwrap_or(folder).display();
        format!(
            "listen {tls} ssl http2; ssl_certificate {files}/cert.pem; \
             ssl_certificate_key {files}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;"
        )
    });
    let server = format!(
        "proxy_cache_path {at}/cache levels=1:2 keys_zone=all:16m max_size=4g inactive=1d \
         use_temp_path=off;\n\
         upstream origin {{ server {origin}; keepalive 64; }}\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_cache all; proxy_cache_lock on;\n\
         server {{ listen {http1}; location / {{ proxy_pass http://origin; }} }}\n\
         server {{ listen {http2} http2; {tls} sendfile off;\n\
         location / {{ proxy_pass http://origin; }} }}",
        http1 = doors.http1,
        http2 = doors.http2,
    );
    nginx(folder, cores, &server)
}

fn nginx(folder: &Path, workers: usize, servers: &str) -> String {
    let at = folder.display();
    let places: String = ["client_body", "proxy", "fastcgi", "scgi", "uwsgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {at}/{name};\n"))
        .collect();
    format!(
        "daemon off;\nworker_processes {workers};\npid {at}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 30000; multi_accept on; }}\n\
         http {{\n\
         access_log off;\nsendfile on;\ntcp_nodelay on;\n\
         keepalive_timeout 1h;\nkeepalive_requests 1000000000;\n\
         open_file_cache max=10000 inactive=1h;\nopen_file_cache_valid 1h;\n\
         default_type application/octet-stream;\n{places}{servers}\n}}\n"
    )
}

/// What Varnish takes for its origin.
pub(super) fn vcl(origin: SocketAddr) -> String {
    format!(
        "vcl 4.1;\nbackend origin {{ .host = \"{}\"; .port = \"{}\"; }}\n",
        origin.ip(),
        origin.port()
    )
}
