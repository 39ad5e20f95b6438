// One layer, as layer.vh and the three memory files describe it: compares every output and the number of cycles.
//
// Stands for both buffers and for the unit that takes the sums. Where weights are shared that unit stores the sums of a
// run; where they are not, the columns of a round hold parts of dot products, which it adds to the outputs they belong to.
`timescale 1ns / 1ps
module testbench;
    `include "layer.vh"
    localparam COUNT = 32;
    localparam COPIES = SHARED ? 1 : COLUMNS;  // of the weights in a word of their buffer

    reg clk = 0, reset = 1, start = 0;
    wire busy, finished;
    wire [COUNT-1:0] weight_address, activation_address, finished_run;
    wire [TILES*COLUMNS*ROWS*SUM-1:0] sums;

    reg [TILES*COPIES*ROWS*LANES-1:0] weight_buffer[0:WEIGHT_WORDS-1];
    reg [COLUMNS*LANES*WIDTH-1:0] activation_buffer[0:ACTIVATION_WORDS-1];
    reg signed [SUM-1:0] expected[0:OUTPUTS-1];
    reg signed [SUM-1:0] outputs[0:OUTPUTS-1];

    wire [TILES*COPIES*ROWS*LANES-1:0] weight_word = weight_buffer[weight_address];
    wire [TILES*COLUMNS*ROWS*LANES-1:0] weights;
    genvar number;
    generate
        for (number = 0; number < TILES; number = number + 1) begin : words
            assign weights[number*COLUMNS*ROWS*LANES+:COLUMNS*ROWS*LANES] =
                weight_word[number*COPIES*ROWS*LANES+:COPIES*ROWS*LANES];
        end
    endgenerate

    machine #(
        .TILES(TILES), .COLUMNS(COLUMNS), .ROWS(ROWS), .LANES(LANES), .WIDTH(WIDTH), .SUM(SUM), .COUNT(COUNT)
    ) array (
        .clk(clk),
        .reset(reset),
        .start(start),
        .shared(SHARED != 0),
        .with_sign(WITH_SIGN != 0),
        .groups(GROUPS),
        .window_sets(WINDOW_SETS),
        .filter_steps(FILTER_STEPS),
        .steps(STEPS),
        .planes(PLANES),
        .busy(busy),
        .weight_address(weight_address),
        .activation_address(activation_address),
        .weights(weights),
        .activations(activation_buffer[activation_address]),
        .finished(finished),
        .finished_run(finished_run),
        .sums(sums)
    );

    integer tile_number, column, row, place, part;
    always @(posedge clk)
        if (finished)
            for (tile_number = 0; tile_number < TILES; tile_number = tile_number + 1)
                for (column = 0; column < COLUMNS; column = column + 1)
                    for (row = 0; row < ROWS; row = row + 1) begin
                        place = (tile_number * COLUMNS + column) * ROWS + row;
                        if (SHARED) outputs[finished_run*TILES*COLUMNS*ROWS+place] = sums[place*SUM+:SUM];
                        else begin
                            // which part of the layer the column has worked on in this round
                            part = (finished_run % FILTER_STEPS) * COLUMNS + column;
                            if (part < PARTS) begin
                                part = (finished_run / FILTER_STEPS) * (PARTS / DEPTH) + part / DEPTH;
                                part = (part * TILES + tile_number) * ROWS + row;
                                outputs[part] = outputs[part] + $signed(sums[place*SUM+:SUM]);
                            end
                        end
                    end

    integer cycles = 0, wrong = 0, index;
    always @(posedge clk) if (busy) cycles = cycles + 1;
    always #1 clk = !clk;

    initial begin
        $readmemh("weights.hex", weight_buffer);
        $readmemh("activations.hex", activation_buffer);
        $readmemh("expected.hex", expected);
        for (index = 0; index < OUTPUTS; index = index + 1) outputs[index] = 0;
        @(negedge clk) reset = 0;
        start = 1;
        @(negedge clk) start = 0;
        wait (!busy);
        repeat (2) @(negedge clk);  // the last sums are taken
        for (index = 0; index < OUTPUTS; index = index + 1)
            if (outputs[index] !== expected[index]) begin
                wrong = wrong + 1;
                if (wrong <= 5) $display("output %0d is %0d, expected %0d", index, outputs[index], expected[index]);
            end
        $display("outputs %0d, wrong %0d, cycles %0d, expected cycles %0d", OUTPUTS, wrong, cycles, CYCLES);
        if (wrong == 0 && cycles == CYCLES) $display("PASS");
        else $fatal(1, "FAIL");
        $finish;
    end
endmodule
