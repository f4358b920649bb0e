//! A custom runtime that needs nothing at all: one static program that speaks the Runtime API over
//! a plain socket, as a Go binary would. Compiled by the tests with `rustc` alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

fn main() {
    let api = std::env::var("AWS_LAMBDA_RUNTIME_API").expect("set by Lambda");
    let mut stream = BufReader::new(TcpStream::connect(&api).expect("the Runtime API listens"));
    loop {
        let next = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: api\r\n\r\n";
        stream.get_mut().write_all(next.as_bytes()).expect("request");
        let (id, event) = read_answer(&mut stream);
        let head = format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n",
            event.len()
        );
        let answer = [head.as_bytes(), &event].concat();
        stream.get_mut().write_all(&answer).expect("answer");
        read_answer(&mut stream);
    }
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> (String, Vec<u8>) {
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a header line");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "lambda-runtime-aws-request-id" => id = value.to_owned(),
            "content-length" => length = value.parse().expect("a number"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body");
    (id, body)
}
