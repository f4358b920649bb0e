// The same for functions-framework, which hands over an Express request.
exports.hello = (request, response) => {
  response.json({ statusCode: 200, body: "hello " + request.body.name });
};
