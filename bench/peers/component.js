// The same for wasmtime: componentize-js makes a component of wasi:http out of it.
const answer = async (request) => {
  const { name } = await request.json();
  const headers = { "content-type": "application/json" };
  return new Response(JSON.stringify({ statusCode: 200, body: "hello " + name }), { headers });
};
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
