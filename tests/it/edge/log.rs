//! The public log over HTTP: which tiles there are, in which spelling, and that damage shows.

use std::net::SocketAddr;

use jadegate::access_log::ENTRY_BYTES;
use jadegate::client::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::deployment::{COURT, Deployment, NDJSON};
use crate::support::process;

/// Lets the log grow to this size: each empty feed leaves one entry.
async fn grow(city: &Deployment, to: u64) {
    let mut court = city.party(COURT);
    for _ in city.log_size().await..to {
        assert_eq!(court.post("/v1/records", NDJSON, "", vec![]).await.unwrap().status, 200);
    }
    assert_eq!(city.log_size().await, to);
}

async fn tile(public: &mut Client, path: &str) -> Option<Vec<u8>> {
    let response = public.get(&format!("/log/tile/{path}")).await.unwrap();
    match response.status.as_u16() {
        200 => Some(response.body.to_vec()),
        404 => None,
        other => panic!("{path}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_come_to_be_with_the_size_of_the_log_and_never_change() {
    let city = Deployment::empty().await;
    let public = &mut city.public();
    grow(&city, 255).await;
    let there = async |public: &mut Client| {
        let mut lengths = Vec::new();
        for path in ["0/000.p/255", "0/000", "1/000.p/1", "0/001.p/1", "0/001", "1/000", "1/000.p/2", "0/001.p/2"] {
            lengths.push(tile(public, path).await.map(|bytes| bytes.len() / 32));
        }
        lengths
    };
    assert_eq!(there(public).await, [Some(255), None, None, None, None, None, None, None]);
    let (partial, bundle) =
        (tile(public, "0/000.p/255").await.unwrap(), tile(public, "entries/000.p/7").await.unwrap());
    assert_eq!(bundle.len(), 7 * (2 + ENTRY_BYTES));
    grow(&city, 256).await;
    assert_eq!(there(public).await, [Some(255), Some(256), Some(1), None, None, None, None, None]);
    grow(&city, 257).await;
    assert_eq!(there(public).await, [Some(255), Some(256), Some(1), Some(1), None, None, None, None]);
    assert_eq!(tile(public, "0/000.p/255").await.unwrap(), partial, "a partial tile stays what it was");
    assert_eq!(tile(public, "0/000").await.unwrap()[..partial.len()], partial);
    assert_eq!(tile(public, "entries/000.p/7").await.unwrap(), bundle);
    assert_eq!(tile(public, "entries/000").await.unwrap()[..bundle.len()], bundle);

    for odd in [
        "0/0",
        "0/00",
        "0/1",
        "0/x000/000",
        "0/X000",
        "00/000",
        "+0/000",
        "-1/000",
        "64/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/000.p/+1",
        "0/000.p/",
        "0/000.p",
        "0/000/",
        "0//000",
        "0/1000",
        "0/x001/000",
        "0/000.P/1",
        "entries/0",
        "entries/x000/000",
        "Entries/000",
        "entries/000.p/256",
        "0/999999999999999999999999",
        "",
        "0",
        "0/000%00",
        "..%2Fcheckpoint",
        "0/%ff",
    ] {
        assert_eq!(tile(public, odd).await, None, "{odd}");
    }
}

/// Serves what `from` serves, with one bit changed at one place of one path.
async fn bend(from: String, path: &'static str, at: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match socket.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let Some(asked) = head.split(' ').nth(1) else { continue };
            let response = Client::new(&from, None).unwrap().get(asked).await.unwrap();
            let (status, mut body) = (response.status, response.body.to_vec());
            if asked == path {
                body[at] ^= 1;
            }
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            socket.write_all(head.as_bytes()).await.unwrap();
            socket.write_all(&body).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_bit_in_entry_300_of_600_is_named() {
    let city = Deployment::empty().await;
    grow(&city, 600).await;
    let verify = async |path: &'static str, at: usize| {
        let url = format!("http://{}", bend(city.config.web_base.clone(), path, at).await);
        tokio::task::spawn_blocking(move || process::run(&["log", "verify", &url])).await.unwrap()
    };
    let (code, out, err) = verify("/nothing", 0).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("600 entries"), "{out}");

    // Entry 300 is the 45th of the second bundle; any byte of it will do, its length aside.
    let begins = 44 * (2 + ENTRY_BYTES) + 2;
    for at in [begins, begins + 77, begins + ENTRY_BYTES - 1] {
        let (code, out, err) = verify("/log/tile/entries/001", at).await;
        assert!(code == 1 && err.contains("entry 300 "), "{code} {out}{err}");
    }
    let (code, _, err) = verify("/log/tile/0/001", 44 * 32 + 5).await;
    assert!(code == 1 && err.contains("entry 300 "), "{code} {err}");
    let (code, _, err) = verify("/log/tile/1/000.p/2", 40).await;
    assert!(code == 1 && err.contains("tile/1/000.p/2"), "{code} {err}");
    let (code, _, err) = verify("/log/checkpoint", 60).await;
    assert!(code == 1 && err.contains("NOT INTACT"), "{code} {err}");
}
