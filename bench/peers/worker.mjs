// The same for workerd.
export default {
  async fetch(request) {
    const { name } = await request.json();
    return Response.json({ statusCode: 200, body: "hello " + name });
  },
};
