//! HTTP on a raw socket, for requests that a well-behaved client never sends.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::Answer;

/// The limit for each answer on a raw socket.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request on a new connection. `path` is sent as it is.
pub async fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("the service accepts connections");
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("the service takes the request");
    read_answer(&mut stream).await
}

/// Sends text on an open connection and reads one answer.
pub async fn ask(stream: &mut TcpStream, text: &str) -> Answer {
    stream.write_all(text.as_bytes()).await.expect("the service takes the request");
    read_answer(stream).await
}

/// Reads until the service closes or resets the connection.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    // What came before a reset is kept.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("the connection ends in time");
    String::from_utf8_lossy(&read).into_owned()
}

/// Reads one answer, up to its `Content-Length` or to the end of the connection.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    timeout(PATIENCE, try_read_answer(stream)).await.expect("an answer in time")
}

async fn try_read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut read = Vec::new();
    loop {
        if let Some(answer) = parse(&read, false) {
            return answer;
        }
        let mut chunk = [0; 16 * 1024];
        match stream.read(&mut chunk).await {
            Ok(0) => break,
            Ok(length) => read.extend_from_slice(&chunk[..length]),
            Err(error) if read.is_empty() => panic!("no answer: {error}"),
            Err(_) => break,
        }
    }
    parse(&read, true).unwrap_or_else(|| panic!("the connection ended after {:?}", String::from_utf8_lossy(&read)))
}

/// Reads this many answers from a connection that stays open. Each must have a `Content-Length`.
pub async fn read_answers(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<Answer> {
    let read = async {
        let (mut read, mut answers) = (Vec::new(), Vec::new());
        while answers.len() < count {
            while let Some(answer) = parse(&read, false) {
                let head = read.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
                read.drain(..head + answer.body.len());
                answers.push(answer);
            }
            let mut chunk = [0; 16 * 1024];
            if answers.len() < count {
                let length = stream.read(&mut chunk).await.expect("an open connection");
                assert!(length > 0, "the connection ended after {} answers of {count}", answers.len());
                read.extend_from_slice(&chunk[..length]);
            }
        }
        assert!(read.is_empty(), "more than {count} answers: {:?}", String::from_utf8_lossy(&read));
        answers
    };
    timeout(PATIENCE, read).await.expect("the answers in time")
}

/// The answer in `read`, if it is complete. `ended` says that no more bytes will come.
fn parse(read: &[u8], ended: bool) -> Option<Answer> {
    let end_of_head = read.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&read[..end_of_head]).expect("an ASCII head");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status code");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a header has a colon");
        let name: HeaderName = name.parse().expect("a header name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a header value"));
    }
    let body = &read[end_of_head + 4..];
    let length = headers.get("content-length").map(|length| length.to_str().ok()?.parse::<usize>().ok());
    let body = match length.flatten() {
        Some(length) => body.get(..length)?,
        None if ended => body,
        None => return None,
    };
    Some(Answer { status, headers, body: Bytes::copy_from_slice(body) })
}
