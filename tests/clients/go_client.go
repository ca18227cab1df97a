// Go's HTTP client with its defaults, and streams as OpenAI's Go client reads them: before version 3.43 every
// blank line was an event, and an event without data ended the stream; since then it is skipped.
//
// Each line of the input is a request: what to do (ask, hold, leave), a name, the URL, the key and the body,
// divided by tabs. Each line of the output is the name, the status, the protocol and the events or the body in
// Base64. `hold` reads three events of a stream and leaves it open, `leave` closes it.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

var before343 = len(os.Args) > 1 && os.Args[1] == "before-3.43"
var held io.Closer

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		asked := strings.Split(input.Text(), "\t")
		if asked[0] == "leave" {
			held.Close()
			time.Sleep(200 * time.Millisecond) // the server learns of it
			fmt.Printf("%s\t0\t\t\n", asked[1])
			continue
		}
		status, protocol, text := answer(asked[0] == "hold", asked[2], asked[3], asked[4])
		fmt.Printf("%s\t%d\t%s\t%s\n", asked[1], status, protocol, base64.StdEncoding.EncodeToString([]byte(text)))
	}
}

func answer(hold bool, url, key, body string) (int, string, string) {
	method := "GET"
	if body != "" {
		method = "POST"
	}
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	must(err)
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	must(err)
	if hold {
		held = response.Body
	} else {
		defer response.Body.Close()
	}
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		whole, err := io.ReadAll(response.Body)
		must(err)
		return response.StatusCode, response.Proto, string(whole)
	}
	most := 1 << 30
	if hold {
		most = 3
	}
	return response.StatusCode, response.Proto, strings.Join(events(response.Body, most), "\n")
}

// events returns the data of the events of a stream until [DONE], an error of the reader as the last of them.
func events(stream io.Reader, most int) []string {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, bufio.MaxScanTokenSize<<9)
	found, data := []string{}, ""
	for len(found) < most && lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch {
		case lines.Text() == "" && data == "" && !before343:
		case lines.Text() == "":
			if strings.HasPrefix(data, "[DONE]") {
				return found
			}
			var chunk any
			if err := json.Unmarshal([]byte(data), &chunk); err != nil {
				return append(found, "the reader ended: "+err.Error())
			}
			found, data = append(found, data), ""
		case name == "data":
			data += strings.TrimPrefix(value, " ")
		}
	}
	return found
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
