// Follows the stream at the URL of the first argument with a browser's two ways,
// fetch and EventSource, and prints what it got.

const url = process.argv[2];

async function byFetch() {
  const answer = await fetch(url);
  let text = "";
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) text += chunk;
  for (const line of text.trimEnd().split("\n")) {
    const { cursor, event, status } = JSON.parse(line);
    console.log("fetch", cursor ?? "-", event?.type ?? status ?? "heartbeat");
  }
}

// An EventSource connects again by itself, naming the last id that it has seen.
function byEventSource() {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    source.addEventListener("api_key.created", (e) => {
      console.log("event", e.lastEventId, JSON.parse(e.data).type);
      if (e.lastEventId === "last") {
        source.close();
        resolve();
      }
    });
    source.addEventListener("error", (e) => {
      if (e.data) console.log("event", e.lastEventId, JSON.parse(e.data).status);
    });
    source.onmessage = (e) => console.log("unexpected", e.data);
  });
}

const awake = setInterval(() => {}, 1000); // node does not wait for a source that waits
await byFetch();
await byEventSource();
clearInterval(awake);
